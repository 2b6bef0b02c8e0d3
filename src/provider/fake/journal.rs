//! The format of the journal: one record per line, each with its checksum.
//!
//! A line is the CRC-32 of the rest in eight hexadecimal digits, a space, the record as JSON, and a line feed. The
//! first line is a header. A batch that must be durable starts with a line that says how much of the file was durable
//! before it, so that a reader can tell what a power loss may have taken from what it cannot: a bad line that a later
//! line declares durable is damage, any other is a torn tail.

use std::io;
use std::path::{Path, PathBuf};

use super::ledger::LedgerEntry;
use super::state::{Record, State};

/// Name of the journal in the data directory.
pub const JOURNAL_FILE: &str = "fake-world.journal";

/// Name of the file, beside the journal, with the key from which join material is derived.
pub const KEY_FILE: &str = "fake-world.key";

/// Version of the format. A newer one is refused.
pub(super) const FORMAT: u32 = 1;

/// Bytes of checksum and space in front of a record.
const PREFIX_BYTES: usize = 9;

/// A file shorter than this that does not start with a header was torn when it was created.
const HEADER_BYTES_MAX: usize = 64;

/// The world's journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something durable has been altered. Nothing was changed.
    #[error(
        "{} is damaged at line {line}, byte {offset}: {why}; restore it from a backup, or remove it to start with \
         machines that were never touched",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Offset of the line in bytes.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version wrote the journal. Nothing was changed.
    #[error(
        "{} has format {found}, and this version reads formats up to {FORMAT}: use the version that wrote it",
        path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// The result of reading a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes that hold whole records.
    pub(super) good_bytes: usize,
    /// Lines that hold them.
    pub(super) lines: u64,
}

/// Appends a record as a line.
pub(super) fn encode(record: &Record, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(&[b' '; PREFIX_BYTES]);
    // Records are strings, numbers and lists of them: JSON can express them all, and a vector accepts every write.
    if serde_json::to_writer(&mut *to, record).is_err() {
        to.truncate(start);
        return;
    }
    let mut sum = crc32(&to[start + PREFIX_BYTES..]);
    for digit in to[start..start + PREFIX_BYTES - 1].iter_mut().rev() {
        *digit = b"0123456789abcdef"[(sum & 0xF) as usize];
        sum >>= 4;
    }
    to.push(b'\n');
}

/// Reads a journal into a state.
///
/// # Errors
/// [`WorldError`] if it is damaged or has a newer format. A torn tail is no error: the extent ends before it.
pub(super) fn replay(path: &Path, bytes: &[u8], state: &mut State) -> Result<Extent, WorldError> {
    let damaged = |line: u64, offset: usize, why: String| WorldError::Damaged {
        path: path.to_owned(),
        line,
        offset: offset as u64,
        why,
    };
    let mut extent = Extent { good_bytes: 0, lines: 0 };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    for line in lines.by_ref() {
        match decode(line) {
            Ok(Record::Header { format }) if format > FORMAT => {
                return Err(WorldError::Newer { path: path.to_owned(), found: format });
            }
            Ok(record) => state.apply(record),
            Err(Flaw::Unknown(why)) => {
                return Err(damaged(extent.lines + 1, extent.good_bytes, why));
            }
            Err(Flaw::Torn(why)) => {
                let (bad_line, offset) = (extent.lines + 1, extent.good_bytes);
                let not_ours = offset == 0 && bytes.len() > HEADER_BYTES_MAX;
                let was_durable = lines.filter_map(|line| decode(line).ok()).any(|record| {
                    matches!(record, Record::Synced { offset: durable } if durable > offset as u64)
                });
                if not_ours || was_durable {
                    return Err(damaged(bad_line, offset, why));
                }
                return Ok(extent);
            }
        }
        extent.good_bytes += line.len();
        extent.lines += 1;
    }
    Ok(extent)
}

/// Reads the ledger from a journal, without changing it: for a server that is gone, or still runs.
///
/// `path` is the journal or the directory that holds it. Operations in flight at the end are `Running`: their end was
/// not recorded.
///
/// # Errors
/// [`WorldError`] if the journal cannot be read, is damaged or has a newer format.
pub fn read_ledger(path: &Path) -> Result<Vec<LedgerEntry>, WorldError> {
    let path = if path.is_dir() { path.join(JOURNAL_FILE) } else { path.to_owned() };
    let bytes = crate::files::read_own(&path).map_err(|source| WorldError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let mut state = State::default();
    replay(&path, &bytes, &mut state)?;
    Ok(state.ledger())
}

/// What is wrong with a line.
enum Flaw {
    /// It is not what was written.
    Torn(String),
    /// It is what was written, but this version cannot interpret it.
    Unknown(String),
}

fn decode(line: &[u8]) -> Result<Record, Flaw> {
    let torn = |why: &str| Flaw::Torn(why.to_owned());
    let line = line.strip_suffix(b"\n").ok_or_else(|| torn("the line has no end"))?;
    let (prefix, json) =
        line.split_at_checked(PREFIX_BYTES).ok_or_else(|| torn("the line is too short"))?;
    let stated = std::str::from_utf8(prefix)
        .ok()
        .and_then(|prefix| u32::from_str_radix(prefix.strip_suffix(' ')?, 16).ok())
        .ok_or_else(|| torn("the line does not begin with a checksum"))?;
    if stated != crc32(json) {
        return Err(torn("the checksum does not match"));
    }
    serde_json::from_slice(json).map_err(|error| Flaw::Unknown(error.to_string()))
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0_u32; 256];
        let mut index = 0;
        while index < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "below 256")]
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes
        .iter()
        .fold(!0_u32, |sum, byte| (sum >> 8) ^ TABLE[((sum ^ u32::from(*byte)) & 0xFF) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_line_reads_back_and_any_change_of_it_shows() {
        let record = Record::Fence { machine: "machine-1".to_owned(), epoch: 7 };
        let mut line = Vec::new();
        encode(&record, &mut line);
        assert_eq!(
            String::from_utf8_lossy(&line),
            "ff753485 {\"fence\":{\"machine\":\"machine-1\",\"epoch\":7}}\n"
        );
        assert!(matches!(decode(&line), Ok(read) if read == record));
        for index in 0..line.len() {
            let mut changed = line.clone();
            changed[index] ^= 1;
            assert!(decode(&changed).is_err(), "byte {index}");
            assert!(decode(&line[..index]).is_err(), "cut at {index}");
        }
    }
}
