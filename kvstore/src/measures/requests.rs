//! How long requests took, from their arrival to their answer, by kind and by whether they were taken; and ranges alone.
//!
//! Of kinds that come by the ten thousand one in [`EVERY`] is timed, the first one too, and counts for all of those.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Histogram;

/// One in so many is timed.
pub const EVERY: u64 = 16;
/// Etcd's names of the kinds, those first of which one in many is timed.
const KINDS: [&str; 24] = [
    "Range",
    "Put",
    "Txn",
    "ReadonlyTxn",
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
const FREQUENT: usize = 4;

/// 1 ms to 8 s, and of ranges 0.1 ms to 52 s.
static ALL: [Timed; KINDS.len()] = [const { Timed::new(1000, 14) }; KINDS.len()];
static RANGES: Timed = Timed::new(100, 20);

/// Times of one kind.
#[derive(Debug)]
struct Timed {
    seen: AtomicU64,
    /// Of those that failed, and of those that were taken.
    took: [Histogram; 2],
}

impl Timed {
    const fn new(first_us: u64, buckets: usize) -> Self {
        Self {
            seen: AtomicU64::new(0),
            took: [
                Histogram::new(first_us, buckets),
                Histogram::new(first_us, buckets),
            ],
        }
    }

    fn begin_one_of_many(&self) -> Option<Instant> {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        let chosen = seen.is_multiple_of(EVERY);
        chosen.then(Instant::now)
    }

    fn print(&self, text: &mut String, name: &str, labels: &str) {
        for (taken, histogram) in [false, true].iter().zip(&self.took) {
            if !histogram.is_empty() {
                histogram.print(text, name, &format!("success=\"{taken}\",{labels}"));
            }
        }
    }
}

fn place(kind: &str) -> Option<usize> {
    KINDS.iter().position(|one| *one == kind)
}

/// Of requests, from their arrival to their answer.
#[derive(Debug)]
pub struct Requests;

impl Requests {
    /// When a request of a kind began, if its time is taken.
    pub fn begin(kind: &str) -> Option<Instant> {
        match place(kind)? {
            at if at < FREQUENT => ALL[at].begin_one_of_many(),
            _ => Some(Instant::now()),
        }
    }

    /// Takes in one that began then.
    pub fn end(kind: &str, begun: Option<Instant>, taken: bool) {
        let Some((begun, at)) = begun.zip(place(kind)) else {
            return;
        };
        let weight = if at < FREQUENT { EVERY } else { 1 };
        ALL[at].took[usize::from(taken)].observe_many(begun.elapsed(), weight);
    }

    /// Adds the lines of those that there were.
    pub fn print(text: &mut String, name: &str) {
        for (kind, timed) in KINDS.iter().zip(&ALL) {
            timed.print(text, name, &format!("type=\"{kind}\","));
        }
    }
}

/// Of ranges, without what they wait for.
#[derive(Debug)]
pub struct Ranges;

impl Ranges {
    /// When a range began, if its time is taken.
    pub fn begin() -> Option<Instant> {
        RANGES.begin_one_of_many()
    }

    /// Takes in one that began then.
    pub fn end(begun: Option<Instant>, taken: bool) {
        if let Some(begun) = begun {
            RANGES.took[usize::from(taken)].observe_many(begun.elapsed(), EVERY);
        }
    }

    /// Adds the lines of those that there were.
    pub fn print(text: &mut String, name: &str) {
        RANGES.print(text, name, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_counts_for_all_of_them() {
        let timed = Timed::new(1000, 4);
        let begun = (0..EVERY * 3).filter_map(|_| timed.begin_one_of_many());
        for at in begun {
            timed.took[1].observe_many(at.elapsed(), EVERY);
        }
        let mut text = String::new();
        timed.print(&mut text, "x", "type=\"Put\",");
        let count = format!("x_count{{success=\"true\",type=\"Put\"}} {}", EVERY * 3);
        assert!(text.lines().any(|line| line == count), "{text}");
        assert!(!text.contains("false"), "{text}");
    }

    #[test]
    fn what_is_rare_counts_as_it_comes() {
        for _ in 0..3 {
            Requests::end("AuthRoleAdd", Requests::begin("AuthRoleAdd"), false);
        }
        assert_eq!(Requests::begin("Nothing"), None);
        let mut text = String::new();
        Requests::print(&mut text, "y");
        let count = "y_count{success=\"false\",type=\"AuthRoleAdd\"} 3";
        assert!(text.lines().any(|line| line == count), "{text}");
    }
}
