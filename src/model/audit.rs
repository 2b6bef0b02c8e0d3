//! The audit: who asked for what, and whether it was done, in a chain of hashes.
//!
//! Each entry is hashed together with the hash of the one before: nothing in the chain can be altered, left out, moved or
//! added without every later hash being another. Who keeps an old head elsewhere can therefore tell whether the entries
//! up to it are still the same. A hash is SHA-256 of the 32 bytes of the hash before, the entry's number, its revision
//! and its time (8 bytes each, the highest first), and the 32 bytes of SHA-256 of its text.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::ids::Revision;

/// How the server came to know who calls, and from where; empty where there is no such thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFacts {
    /// The method: `StartRun`. Empty for one that the engine knows itself.
    pub rpc: &'static str,
    /// By what the name was proved: `certificate`, `token`, `jwt`.
    pub proof: &'static str,
    /// Address of the peer.
    pub peer: String,
    /// The caller's role, if it is verified and below an admin's.
    pub below_admin: Option<&'static str>,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// It was carried out, in the same commit as the entry.
    Done,
    /// It was refused because of who called.
    Denied,
}

impl Decision {
    /// Name in the stored form and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
        }
    }

    /// The decision of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Done, Self::Denied].into_iter().find(|decision| decision.as_str() == name)
    }
}

/// One entry, before it has its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The outcome.
    pub decision: Decision,
    /// Who called; empty if unknown.
    pub principal: Arc<str>,
    /// Whether the server has verified the name, as opposed to one that a client declares.
    pub verified: bool,
    /// By what: `certificate`, `token`, `jwt`; empty if it was not.
    pub proof: String,
    /// Address of the peer; empty if there is none.
    pub peer: String,
    /// The method.
    pub rpc: String,
    /// What it was done to: `machines/machine-1`, `runs/…`.
    pub objects: Vec<String>,
    /// Idempotency key; empty if none was given.
    pub request_id: String,
    /// Why: as the caller says, or why it was denied.
    pub reason: String,
    /// Digest of the request.
    pub body_digest: String,
    /// Digest of the plan that the run was started with.
    pub plan_digest: String,
    /// Of how many calls the entry speaks.
    pub calls: u64,
}

/// A place in the chain: the number of an entry and its hash. Number 0 is before the first entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditHead {
    /// Number of the entry.
    pub seq: u64,
    /// Its hash.
    pub hash: AuditHash,
}

/// A hash of the chain.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditHash(pub [u8; 32]);

impl AuditHash {
    /// The hash of stored bytes; of a wrong number of them, one that belongs to no entry.
    #[must_use]
    pub fn of_stored(bytes: &[u8]) -> Self {
        Self(bytes.try_into().unwrap_or_default())
    }

    /// The hash of a text of 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The digest of the text of an entry.
#[must_use]
pub fn digest(body: &str) -> [u8; 32] {
    Sha256::digest(body).into()
}

impl AuditHead {
    /// The place of the entry after this one: its revision, time, and the digest of its text.
    #[must_use]
    pub fn then(&self, revision: Revision, at: Timestamp, digest: &[u8; 32]) -> Self {
        let seq = self.seq + 1;
        let mut hash = Sha256::new();
        hash.update(self.hash.0);
        for number in [seq, revision.0, at.0] {
            hash.update(number.to_be_bytes());
        }
        hash.update(digest);
        Self { seq, hash: AuditHash(hash.finalize().into()) }
    }
}

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number: dense, from 1.
    pub seq: u64,
    /// Revision of its commit.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// Its text, as it was hashed.
    pub body: Arc<str>,
    /// Its hash.
    pub hash: AuditHash,
}

/// Why a chain cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// Entries are not there.
    #[error(
        "after entry {after} of the audit comes entry {found}: what was between them is missing"
    )]
    Missing {
        /// The last one that was there.
        after: u64,
        /// The next one.
        found: u64,
    },
    /// An entry, or one before it, is not as it was written.
    #[error(
        "entry {seq} of the audit does not follow from the one before: it was altered, moved or added"
    )]
    Altered {
        /// The entry.
        seq: u64,
    },
    /// The chain ends before the saved head.
    #[error(
        "the audit ends with entry {newest}, and the saved head is entry {saved}: its end was cut off, or an older copy \
         was put back"
    )]
    Cut {
        /// Its last entry.
        newest: u64,
        /// The saved one.
        saved: u64,
    },
    /// Another entry is where the saved head was.
    #[error(
        "entry {seq} of the audit is not the one of the saved head: entries up to it were written again"
    )]
    Rewritten {
        /// The entry.
        seq: u64,
    },
    /// The saved head is older than what is kept.
    #[error(
        "the saved head is entry {saved}, and entries up to {kept} were deleted by the retention: it proves nothing any more"
    )]
    Forgotten {
        /// The saved one.
        saved: u64,
        /// The last one that was deleted.
        kept: u64,
    },
}

/// Follows a chain from its beginning, entry by entry.
#[derive(Debug, Clone)]
pub struct Chain {
    at: AuditHead,
    saved: Option<AuditHead>,
}

impl Chain {
    /// Begins after `anchor`, the last entry that was deleted. The chain must lead through `saved`.
    ///
    /// # Errors
    /// [`AuditFault`] if the saved head cannot be in it.
    pub fn after(anchor: AuditHead, saved: Option<AuditHead>) -> Result<Self, AuditFault> {
        let chain = Self { at: anchor, saved };
        match saved {
            Some(saved) if saved.seq < anchor.seq => {
                Err(AuditFault::Forgotten { saved: saved.seq, kept: anchor.seq })
            }
            Some(_) | None => chain.is_saved().map(|()| chain),
        }
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`AuditFault`] if it does not follow.
    pub fn follow(&mut self, row: &AuditRow) -> Result<(), AuditFault> {
        if row.seq != self.at.seq + 1 {
            return Err(AuditFault::Missing { after: self.at.seq, found: row.seq });
        }
        let next = self.at.then(row.revision, row.at, &digest(&row.body));
        if next.hash != row.hash {
            return Err(AuditFault::Altered { seq: row.seq });
        }
        self.at = next;
        self.is_saved()
    }

    /// The head, when there are no more entries.
    ///
    /// # Errors
    /// [`AuditFault`] if the saved head was not reached.
    pub fn end(self) -> Result<AuditHead, AuditFault> {
        match self.saved {
            Some(saved) if saved.seq > self.at.seq => {
                Err(AuditFault::Cut { newest: self.at.seq, saved: saved.seq })
            }
            Some(_) | None => Ok(self.at),
        }
    }

    fn is_saved(&self) -> Result<(), AuditFault> {
        match self.saved {
            Some(saved) if saved.seq == self.at.seq && saved.hash != self.at.hash => {
                Err(AuditFault::Rewritten { seq: saved.seq })
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditRow> {
        let mut head = AuditHead::default();
        (1..=length)
            .map(|number| {
                let body = format!("{{\"n\":{number}}}");
                let (revision, at) = (Revision(number * 2), Timestamp(number * 1000));
                head = head.then(revision, at, &digest(&body));
                AuditRow { seq: head.seq, revision, at, body: body.into(), hash: head.hash }
            })
            .collect()
    }

    fn verify(rows: &[AuditRow], saved: Option<AuditHead>) -> Result<AuditHead, AuditFault> {
        let mut chain = Chain::after(AuditHead::default(), saved)?;
        rows.iter().try_for_each(|row| chain.follow(row))?;
        chain.end()
    }

    fn head(row: &AuditRow) -> AuditHead {
        AuditHead { seq: row.seq, hash: row.hash }
    }

    /// Computed with another program from the description at the head of this file.
    #[test]
    fn the_hash_is_the_described_one() {
        let first = AuditHead::default().then(Revision(2), Timestamp(1000), &digest("{\"n\":1}"));
        assert_eq!(first.hash.to_string(), KNOWN);
        assert_eq!(AuditHash::parse(KNOWN), Some(first.hash));
        assert_eq!(AuditHash::parse(&KNOWN[1..]), None);
        assert_eq!(AuditHash::parse(&KNOWN.replace('f', "g")), None);
    }
    const KNOWN: &str = "903b8ef615de304e1ff241d355782e5da369a7728b2950baac3705d806c40c65";

    #[test]
    fn every_change_of_a_chain_is_found() {
        let rows = chain(9);
        let newest = head(&rows[8]);
        assert_eq!(verify(&rows, None), Ok(newest));
        assert_eq!(verify(&rows, Some(newest)), Ok(newest));
        assert_eq!(verify(&rows, Some(head(&rows[3]))), Ok(newest));
        for place in 0..rows.len() {
            let seq = rows[place].seq;
            let altered = |change: &dyn Fn(&mut AuditRow)| {
                let mut rows = rows.clone();
                change(&mut rows[place]);
                verify(&rows, None).unwrap_err()
            };
            let fault = AuditFault::Altered { seq };
            assert_eq!(altered(&|row| row.body = row.body.replace('n', "m").into()), fault);
            assert_eq!(altered(&|row| row.revision.0 += 1), fault);
            assert_eq!(altered(&|row| row.at.0 += 1), fault);
            assert_eq!(altered(&|row| row.hash.0[31] ^= 1), fault);
            let mut cut = rows.clone();
            cut.remove(place);
            assert!(verify(&cut, Some(newest)).is_err(), "{seq} was deleted");
            let mut doubled = rows.clone();
            doubled.insert(place, rows[place].clone());
            assert!(verify(&doubled, None).is_err(), "{seq} was added");
            if place > 0 {
                let mut swapped = rows.clone();
                swapped.swap(place - 1, place);
                assert!(verify(&swapped, None).is_err());
                // With its number, so that none is missing.
                let mut moved = rows.clone();
                (moved[place].body, moved[place - 1].body) =
                    (rows[place - 1].body.clone(), rows[place].body.clone());
                assert_eq!(verify(&moved, None), Err(AuditFault::Altered { seq: seq - 1 }));
            }
        }
    }

    #[test]
    fn what_only_a_saved_head_shows_is_found_with_it() {
        let rows = chain(9);
        let newest = head(&rows[8]);
        assert_eq!(
            verify(&rows[..6], None),
            Ok(head(&rows[5])),
            "a shorter chain is whole in itself"
        );
        assert_eq!(verify(&rows[..6], Some(newest)), Err(AuditFault::Cut { newest: 6, saved: 9 }));
        // Written again from the fifth on, with the right hashes.
        let mut again = rows[..4].to_vec();
        let mut at = head(&rows[3]);
        for number in 5..=12 {
            let (revision, when) = (Revision(number * 2), Timestamp(number));
            at = at.then(revision, when, &digest("{}"));
            let row =
                AuditRow { seq: at.seq, revision, at: when, body: "{}".into(), hash: at.hash };
            again.push(row);
        }
        assert!(verify(&again, None).is_ok());
        assert!(verify(&again, Some(head(&rows[3]))).is_ok());
        assert_eq!(verify(&again, Some(newest)), Err(AuditFault::Rewritten { seq: 9 }));
    }

    #[test]
    fn a_chain_is_followed_from_what_was_deleted() {
        let rows = chain(9);
        let mut kept = Chain::after(head(&rows[3]), Some(head(&rows[3]))).unwrap();
        rows[4..].iter().for_each(|row| kept.follow(row).unwrap());
        assert_eq!(kept.end(), Ok(head(&rows[8])));
        let old = Chain::after(head(&rows[3]), Some(head(&rows[1]))).unwrap_err();
        assert_eq!(old, AuditFault::Forgotten { saved: 2, kept: 4 });
        let wrong = AuditHead { hash: AuditHash([7; 32]), ..head(&rows[3]) };
        assert_eq!(
            Chain::after(wrong, None).unwrap().follow(&rows[4]),
            Err(AuditFault::Altered { seq: 5 })
        );
    }
}
