//! Checksums of stored rows: a flipped bit, in whatever column, is noticed when the row is read and by `check`.
//!
//! CRC-32C over the values of the columns, each with its type and length, so that no change of up to 32 bits in a row
//! passes. Indexes, and columns that repeat part of a record, have no checksum: `check` compares them with the
//! records. Observed facts (`observed`) have none either.

use std::ops::Range;

use crc32c::crc32c_append;
use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Connection, Row, params};

use super::error::failed;
use crate::store::StoreError;
use crate::store::codec::DecodeError;

/// Rows read at a time by scans of a whole table.
const PAGE: usize = 1_000;

/// The columns that a checksum covers.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) table: &'static str,
    /// Column of the checksum.
    pub(super) sum: &'static str,
    /// Column by which rows are named for people.
    name: &'static str,
    /// Primary key.
    key: &'static str,
    columns: &'static str,
}

/// Every checksum, in the order of computation: one may cover another.
pub(super) const SEALS: [Seal; 15] = [
    Seal {
        table: "machines",
        sum: "sum",
        name: "id",
        key: "ordinal",
        columns: "ordinal, revision, body",
    },
    Seal {
        table: "runs",
        sum: "sum",
        name: "id",
        key: "ordinal",
        columns: "ordinal, revision, body",
    },
    Seal { table: "changes", sum: "body_sum", name: "place", key: "place", columns: "body" },
    Seal { table: "changes", sum: "prior_sum", name: "place", key: "place", columns: "prior" },
    Seal {
        table: "changes",
        sum: "sum",
        name: "place",
        key: "place",
        columns: "place, at, machine_id, machine, run, before, kind, first_entry, entries, body_sum",
    },
    Seal {
        table: "logs",
        sum: "sum",
        name: "place",
        key: "place",
        columns: "run, chunk, at, step, attempt, stream, truncated, text",
    },
    Seal {
        table: "requests",
        sum: "sum",
        name: "place",
        key: "place",
        columns: "scope, request_id, body_digest, object_id, at, revision",
    },
    Seal { table: "plans", sum: "sum", name: "digest", key: "digest", columns: "digest, text" },
    Seal { table: "slots", sum: "sum", name: "run", key: "run", columns: "run, id, keys" },
    Seal { table: "gone", sum: "sum", name: "id", key: "id", columns: "id, epoch" },
    Seal {
        table: "meta",
        sum: "sum",
        name: "id",
        key: "id",
        columns: "id, revision, compacted, machine_ordinal, run_ordinal, epoch_floor",
    },
    Seal { table: "meta", sum: "outcomes_sum", name: "id", key: "id", columns: "format, outcomes" },
    Seal {
        table: "installations",
        sum: "sum",
        name: "machine_id",
        key: "machine_id",
        columns: "machine_id, body",
    },
    Seal {
        table: "cursors",
        sum: "sum",
        name: "receiver",
        key: "receiver",
        columns: "receiver, owner, next, done",
    },
    Seal { table: "brakes", sum: "sum", name: "key", key: "key", columns: "key, body" },
];

/// A row whose checksum does not match.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    /// For people, and for accepting it: `machines/machine-1`.
    pub(super) name: String,
    key: Value,
    /// The correct checksum.
    right: i64,
}

impl Seal {
    /// Computes the checksum of every row.
    pub(super) fn fill(&self, conn: &Connection) -> rusqlite::Result<()> {
        self.each_page(conn, |rows| rows.iter().try_for_each(|row| self.mend(conn, row)))
    }

    /// The rows whose checksum does not match.
    pub(super) fn broken(
        &self,
        conn: &Connection,
        mut each: impl FnMut(Broken),
    ) -> rusqlite::Result<()> {
        self.each_page(conn, |rows| {
            rows.into_iter().for_each(&mut each);
            Ok(())
        })
    }

    /// Accepts a row unchanged.
    pub(super) fn mend(&self, conn: &Connection, row: &Broken) -> rusqlite::Result<()> {
        let Self { table, sum, key, .. } = self;
        let sql = format!("UPDATE {table} SET {sum} = ?2 WHERE {key} = ?1");
        conn.prepare_cached(&sql)?.execute(params![row.key, row.right]).map(|_| ())
    }

    /// Scans the table page by page, and returns the broken rows of each page when it has been read.
    fn each_page(
        &self,
        conn: &Connection,
        mut each: impl FnMut(Vec<Broken>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let Self { table, sum, name, key, columns } = self;
        let mut after: Option<Value> = None;
        loop {
            let from = after.as_ref().map_or("", |_| "WHERE KEY > ?1").replace("KEY", key);
            let sql = format!(
                "SELECT {key}, {name}, {sum}, {columns} FROM {table} {from} ORDER BY {key} LIMIT {PAGE}"
            );
            let mut query = conn.prepare(&sql)?;
            let covered = 3..query.column_count();
            let mut rows = match &after {
                Some(after) => query.query([after])?,
                None => query.query([])?,
            };
            let (mut broken, mut read) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                read += 1;
                let (key, right) = (row.get::<_, Value>(0)?, of_row(row, covered.clone())?);
                if row.get_ref(2)? != ValueRef::Integer(right) {
                    let name = format!("{table}/{}", plain(row.get_ref(1)?));
                    broken.push(Broken { name, key: key.clone(), right });
                }
                after = Some(key);
            }
            drop(rows);
            each(broken)?;
            if read < PAGE {
                return Ok(());
            }
        }
    }
}

fn plain(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).escape_debug().to_string(),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => "?".to_owned(),
    }
}

/// Whether the columns of a row that `sum` covers are unaltered.
///
/// # Errors
/// Those of SQLite.
pub(super) fn holds(row: &Row<'_>, covered: Range<usize>, sum: usize) -> rusqlite::Result<bool> {
    let right = of_row(row, covered)?;
    Ok(row.get_ref(sum)? == ValueRef::Integer(right))
}

/// Refuses an altered row. Nothing can start from it, so it counts as an SQLite error.
pub(super) fn sealed(row: &Row<'_>, covered: Range<usize>, sum: usize) -> rusqlite::Result<()> {
    if holds(row, covered, sum)? {
        return Ok(());
    }
    let error = DecodeError::Checksum;
    Err(rusqlite::Error::FromSqlConversionFailure(sum, Type::Integer, Box::new(error)))
}

/// Like [`holds`], as an error of the record in the row.
pub(super) fn verify(
    row: &Row<'_>,
    covered: Range<usize>,
    sum: usize,
    corrupt: impl FnOnce(DecodeError) -> StoreError,
) -> Result<(), StoreError> {
    if holds(row, covered, sum).map_err(failed)? {
        Ok(())
    } else {
        Err(corrupt(DecodeError::Checksum))
    }
}

fn of_row(row: &Row<'_>, covered: Range<usize>) -> rusqlite::Result<i64> {
    let mut sum = Sum::default();
    for column in covered {
        sum.add(row.get_ref(column)?);
    }
    Ok(sum.0.into())
}

/// The checksum of values in the order of the columns.
pub(super) fn of(values: &[ValueRef<'_>]) -> i64 {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.0.into()
}

/// Text, for [`of`].
pub(super) fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

/// A number, or NULL for none.
pub(super) fn number(number: Option<i64>) -> ValueRef<'static> {
    number.map_or(ValueRef::Null, ValueRef::Integer)
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum(u32);

impl Sum {
    fn add(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.bytes(&[0]),
            ValueRef::Integer(number) => self.word(1, number.to_le_bytes()),
            ValueRef::Real(number) => self.word(2, number.to_le_bytes()),
            ValueRef::Text(text) => self.long(3, text),
            ValueRef::Blob(bytes) => self.long(4, bytes),
        }
    }

    fn long(&mut self, kind: u8, bytes: &[u8]) {
        self.word(kind, (bytes.len() as u64).to_le_bytes());
        self.bytes(bytes);
    }

    fn word(&mut self, kind: u8, word: [u8; 8]) {
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&word);
        self.bytes(&bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = crc32c_append(self.0, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the algorithm, and the examples of RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32c_append(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c_append(0, &[0xff; 32]), 0x62a8_ab43);
        let all: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        for cut in 0..all.len() {
            let in_two = crc32c_append(crc32c_append(0, &all[..cut]), &all[cut..]);
            assert_eq!(in_two, crc32c_append(0, &all));
        }
    }

    #[test]
    fn values_that_differ_have_checksums_that_differ() {
        let values = [
            vec![ValueRef::Null],
            vec![ValueRef::Null, ValueRef::Null],
            vec![ValueRef::Integer(0)],
            vec![text("")],
            vec![text("a"), text("b")],
            vec![text("ab"), text("")],
            vec![ValueRef::Blob(b"ab"), text("")],
        ];
        for (place, one) in values.iter().enumerate() {
            assert!(!values[..place].iter().any(|other| of(other) == of(one)), "{one:?}");
        }
    }
}
