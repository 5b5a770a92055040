//! How long changes of the state took to apply, by kind and by whether they were taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Histogram;

/// Etcd's names of the kinds, the usual ones first: they are looked for from the beginning.
const KINDS: [&str; 22] = [
    "Put",
    "Txn",
    "DeleteRange",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Compaction",
    "Authenticate",
    "Alarm",
    "ClusterMemberAttrSet",
    "DowngradeInfoSet",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
];
/// 0.1 ms to 52 s.
const FIRST_US: u64 = 100;
const BUCKETS: usize = 20;

/// All of them, of those that failed and of those that were taken.
#[derive(Debug)]
pub struct Applies {
    taken: [[Histogram; 2]; KINDS.len()],
    slow: AtomicU64,
}

static APPLIES: Applies = Applies {
    taken: [const { [const { Histogram::new(FIRST_US, BUCKETS) }; 2] }; KINDS.len()],
    slow: AtomicU64::new(0),
};

/// A clock that changes are applied by, one after the other: it is looked at once for each.
#[derive(Debug)]
pub struct Lap(Instant);

impl Lap {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Takes in what was applied since the last one, or the beginning; how long that was.
    pub fn applied(&mut self, kind: &str, taken: bool) -> Duration {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.0, now));
        if let Some(at) = KINDS.iter().position(|one| *one == kind) {
            APPLIES.taken[at][usize::from(taken)].observe(took);
        }
        took
    }
}

impl Applies {
    /// Counts one that was slow.
    pub fn note_slow() {
        APPLIES.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were slow.
    pub fn slow() -> u64 {
        APPLIES.slow.load(Ordering::Relaxed)
    }

    /// Adds the lines of those that there were.
    pub fn print(text: &mut String, name: &str) {
        for (kind, both) in KINDS.iter().zip(&APPLIES.taken) {
            for (taken, histogram) in [false, true].iter().zip(both) {
                if !histogram.is_empty() {
                    let labels = format!("op=\"{kind}\",success=\"{taken}\",version=\"v3\",");
                    histogram.print(text, name, &labels);
                }
            }
        }
    }
}
