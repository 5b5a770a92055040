//! What became of one key: a slot for each revision that changed it.

use super::Kv;

/// A change's place: the transaction's revision, and its number within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rev {
    pub main: i64,
    pub sub: u32,
}

impl Rev {
    /// The key of its record on disk; byte order is revision order.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(12);
        key.extend_from_slice(&self.main.to_be_bytes());
        key.extend_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The place that such a key tells; None when it is too short.
    #[must_use]
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (main, sub) = (
            key.get(..8)?.try_into().ok()?,
            key.get(8..12)?.try_into().ok()?,
        );
        Some(Self {
            main: i64::from_be_bytes(main),
            sub: u32::from_be_bytes(sub),
        })
    }
}

/// A change's place and kind, in 16 bytes: there is one for each revision of each key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub main: i64,
    pub sub: u32,
    pub tombstone: bool,
}

impl Slot {
    pub fn rev(&self) -> Rev {
        Rev {
            main: self.main,
            sub: self.sub,
        }
    }
}

#[derive(Debug)]
pub(super) struct History {
    pub newest: Slot,
    /// None when the newest change deleted the key.
    pub value: Option<Kv>,
    pub older: Vec<Slot>,
}

impl History {
    /// The last change at or before a revision.
    pub fn at(&self, revision: i64) -> Option<Slot> {
        if self.newest.main <= revision {
            return Some(self.newest);
        }
        let seen = self.older.partition_point(|slot| slot.main <= revision);
        seen.checked_sub(1).map(|i| self.older[i])
    }

    /// The change with this number, from the oldest that is kept on.
    pub fn slot(&self, number: usize) -> Option<Slot> {
        match number.checked_sub(self.older.len()) {
            None => Some(self.older[number]),
            Some(0) => Some(self.newest),
            Some(_) => None,
        }
    }

    /// How many of the changes that are kept were before `rev`.
    pub fn before(&self, rev: Rev) -> usize {
        let older = self.older.partition_point(|slot| slot.rev() < rev);
        older + usize::from(self.newest.rev() < rev)
    }
}
