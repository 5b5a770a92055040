//! Etcd's sums of a state, by which members are compared: of the keys up to a revision, and of everything.
//!
//! Read where the state lies, as of one moment, so that nobody waits for it: what LMDB holds tells also which of the old
//! records a compaction keeps.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::export::{revision_record, Sink, Small};
use super::schema::{KEY, META, NOT_SUMMED};
use super::EtcdFileError;
use crate::apply::{decode_applied, APPLIED};
use crate::backend::{BackendError, Held, Table, View};
use crate::crc32c::Crc32c;
use crate::errors::StoreError;
use crate::mvcc::{Fields, Rev};

/// Records that are read before it is asked again whether anybody waits for the sum.
const ROWS_UNASKED: usize = 1_000;
/// What etcd calls the compacted revision of a state that was never compacted.
const NEVER_COMPACTED: i64 = -1;

/// The sum of the keys' records up to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysHash {
    pub hash: u32,
    /// Up to which it is.
    pub revision: i64,
    /// -1 before the first compaction.
    pub compacted: i64,
    /// The state's revision when it was read.
    pub current: i64,
}

/// Why there is no sum.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The revision is compacted, or does not exist yet.
    #[error("{0}")]
    Refused(#[from] StoreError),
    #[error("{0}")]
    State(#[from] BackendError),
    #[error("{0}")]
    File(#[from] EtcdFileError),
    #[error("nobody waits for the sum any more")]
    Unwanted,
}

/// Etcd's `HashKV`: the keys' records up to `revision`, or up to the newest with 0. Blocks.
///
/// # Errors
/// etcd's for a revision that is not there, and when a record can't be read or `wanted` says no.
pub fn hash_keys(
    view: &View,
    revision: i64,
    wanted: &dyn Fn() -> bool,
) -> Result<KeysHash, HashError> {
    view.hold(|held| {
        let (current, compacted) = position(held)?;
        let revision = if revision == 0 { current } else { revision };
        // As etcd, which takes negative ones: nothing is up to them.
        if revision > 0 && revision < compacted {
            return Err(StoreError::Compacted.into());
        }
        if revision > current {
            return Err(StoreError::FutureRevision.into());
        }
        let mut keys = Keys {
            held,
            wanted,
            compacted,
        };
        Ok(KeysHash {
            hash: keys.sum(revision)?,
            revision,
            compacted: if compacted == 0 {
                NEVER_COMPACTED
            } else {
                compacted
            },
            current,
        })
    })
}

/// Etcd's `Hash`: every bucket with every record, and the revision that this is of. Blocks.
///
/// # Errors
/// When a record can't be read, or `wanted` says no.
pub fn hash_all(view: &View, wanted: &dyn Fn() -> bool) -> Result<(u32, i64), HashError> {
    view.hold(|held| {
        let small = Small::read(held)?;
        let mut sum = Everything {
            crc: Crc32c::default(),
            bucket: "",
            rows: 0,
            wanted,
        };
        match small.fill(held, &mut sum) {
            Ok(()) => Ok((sum.crc.sum(), small.revision)),
            Err(_) if !wanted() => Err(HashError::Unwanted),
            Err(error) => Err(error.into()),
        }
    })
}

fn position(held: &Held<'_>) -> Result<(i64, i64), BackendError> {
    let Some(state) = held.get(Table::Meta, APPLIED)? else {
        return Ok((1, 0));
    };
    let state = state
        .try_into()
        .map_err(|_| held.damaged("its position has another length"))?;
    let (_, revision, compacted) = decode_applied(state);
    Ok((revision, compacted))
}

struct Keys<'h, 'v> {
    held: &'h Held<'v>,
    wanted: &'h dyn Fn() -> bool,
    compacted: i64,
}

impl Keys<'_, '_> {
    fn sum(&mut self, revision: i64) -> Result<u32, HashError> {
        let mut kept = self.kept(revision)?;
        let mut crc = Crc32c::default();
        crc.update(KEY.as_bytes());
        let end = behind(revision);
        for (number, row) in self.held.before(Table::Revisions, &end)?.enumerate() {
            let (key, value) = self.next(number, row)?;
            // The flags are of the oldest records, the last of all first.
            if kept.pop().unwrap_or(true) {
                let (key, value) = revision_record(self.held, key, value)?;
                crc.update(&key);
                crc.update(&value);
            }
        }
        Ok(crc.sum())
    }

    /// For each record up to the compaction, the last first: whether it is summed. Etcd sums those that a compaction at
    /// `revision` would keep, or if that were none at all, what the last compaction kept; its own deletions never.
    fn kept(&self, revision: i64) -> Result<Vec<bool>, HashError> {
        if self.compacted == 0 {
            return Ok(Vec::new());
        }
        let (kept, any) = self.living(revision)?;
        if any {
            Ok(kept)
        } else {
            Ok(self.living(self.compacted)?.0)
        }
    }

    /// Which of the records up to the compaction are of keys that they still hold at `revision`, the last first; and
    /// whether any key lives there.
    fn living(&self, revision: i64) -> Result<(Vec<bool>, bool), HashError> {
        // Fingerprints, since keys may be long and many; 128 bits of two secret hashes are not met twice.
        let (one, other) = (RandomState::new(), RandomState::new());
        let mut seen: HashSet<(u64, u64)> = HashSet::new();
        let (mut living, mut any) = (Vec::new(), false);
        let end = behind(revision);
        for (number, row) in self.held.back_from(Table::Revisions, &end)?.enumerate() {
            let (key, value) = self.next(number, row)?;
            let damaged = || self.held.damaged("a revision's record is no key-value");
            let rev = Rev::decode(key).ok_or_else(damaged)?;
            let (flag, body) = value.split_first().ok_or_else(damaged)?;
            let name = Fields::read(body).ok_or_else(damaged)?.key;
            let newest = seen.insert((one.hash_one(name), other.hash_one(name)));
            let lives = newest && *flag == 0;
            any |= lives;
            if rev.main <= self.compacted {
                living.push(lives);
            }
        }
        Ok((living, any))
    }

    fn next<'r>(
        &self,
        number: usize,
        row: Result<(&'r [u8], &'r [u8]), BackendError>,
    ) -> Result<(&'r [u8], &'r [u8]), HashError> {
        if number.is_multiple_of(ROWS_UNASKED) && !(self.wanted)() {
            return Err(HashError::Unwanted);
        }
        Ok(row?)
    }
}

/// The key of the first record behind a revision.
fn behind(revision: i64) -> Vec<u8> {
    let main = revision.max(0).saturating_add(1);
    Rev { main, sub: 0 }.encode()
}

struct Everything<'w> {
    crc: Crc32c,
    bucket: &'static str,
    rows: usize,
    wanted: &'w dyn Fn() -> bool,
}

impl Sink for Everything<'_> {
    fn begin(&mut self, bucket: &'static str) -> Result<(), EtcdFileError> {
        self.bucket = bucket;
        self.crc.update(bucket.as_bytes());
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdFileError> {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_UNASKED) && !(self.wanted)() {
            return Err(EtcdFileError::Refused("it is not wanted any more".into()));
        }
        if !(self.bucket == META && NOT_SUMMED.contains(&key)) {
            self.crc.update(key);
            self.crc.update(value);
        }
        Ok(())
    }
}
