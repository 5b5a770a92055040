//! What this process measures of its disks and connections, for `/metrics`. There is one of each for the whole process,
//! as there is one of it: nobody has to hand them down, and taking one in costs two additions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The most buckets that a histogram has, with the last one for all that is longer.
const SLOTS: usize = 17;

/// Durations, in buckets of which each reaches twice as far as the one before.
pub struct Histogram {
    /// How far the first reaches, in microseconds.
    first_us: u64,
    buckets: usize,
    counts: [AtomicU64; SLOTS],
    sum_us: AtomicU64,
}

impl Histogram {
    const fn new(first_us: u64, buckets: usize) -> Self {
        assert!(buckets < SLOTS);
        Self {
            first_us,
            buckets,
            counts: [const { AtomicU64::new(0) }; SLOTS],
            sum_us: AtomicU64::new(0),
        }
    }

    /// Takes one in.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let beyond = us.saturating_sub(1) / self.first_us;
        let at = beyond.checked_ilog2().map_or(0, |log| log as usize + 1);
        self.counts[at.min(self.buckets)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Adds its lines; `labels` are written as they are, and end with a comma if there are any.
    pub fn print(&self, text: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (at, count) in self.counts[..=self.buckets].iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let reach = if at == self.buckets {
                "+Inf".to_owned()
            } else {
                seconds(self.first_us << at).to_string()
            };
            // A String takes all that is written to it.
            let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{reach}\"}} {total}");
        }
        let alone = labels.trim_end_matches(',');
        let alone = if alone.is_empty() {
            String::new()
        } else {
            format!("{{{alone}}}")
        };
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        let _ = writeln!(text, "{name}_sum{alone} {sum}\n{name}_count{alone} {total}");
    }
}

#[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Syncs of the log, and commits of the state.
pub static WAL_FSYNC: Histogram = Histogram::new(1000, 14);
pub static BACKEND_COMMIT: Histogram = Histogram::new(1000, 14);
/// Bytes from and to clients, as they go over their connections.
pub static CLIENT_RECEIVED: AtomicU64 = AtomicU64::new(0);
pub static CLIENT_SENT: AtomicU64 = AtomicU64::new(0);

/// Of one other member.
pub struct PeerMeasures {
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_failures: AtomicU64,
    pub round_trip: Histogram,
}

static PEERS: Mutex<BTreeMap<u64, Arc<PeerMeasures>>> = Mutex::new(BTreeMap::new());

/// Those of a member; the same ones for each who asks.
pub fn of_peer(id: u64) -> Arc<PeerMeasures> {
    let fresh = || {
        Arc::new(PeerMeasures {
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_failures: AtomicU64::new(0),
            round_trip: Histogram::new(100, 16),
        })
    };
    match PEERS.lock() {
        Ok(mut peers) => Arc::clone(peers.entry(id).or_insert_with(fresh)),
        Err(_) => fresh(),
    }
}

/// All members that there were, by id.
pub fn peers() -> Vec<(u64, Arc<PeerMeasures>)> {
    let peers = PEERS.lock();
    peers.map_or_else(|_| Vec::new(), |peers| peers.clone().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_reach() {
        let histogram = Histogram::new(1000, 3);
        for us in [0, 1000, 1001, 2000, 2001, 4000, 4001, 1_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut text = String::new();
        histogram.print(&mut text, "x", "To=\"1\",");
        let lines = [
            "x_bucket{To=\"1\",le=\"0.001\"} 2",
            "x_bucket{To=\"1\",le=\"0.002\"} 4",
            "x_bucket{To=\"1\",le=\"0.004\"} 6",
            "x_bucket{To=\"1\",le=\"+Inf\"} 8",
            "x_sum{To=\"1\"} 1.014003",
            "x_count{To=\"1\"} 8",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
