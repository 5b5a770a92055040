//! What this process measures of its disks and connections, for `/metrics`. There is one of each for the whole process,
//! as there is one of it: nobody has to hand them down, and taking one in costs two additions.
//!
//! Its parts: `applies`, what changes of the state took, `requests`, what requests did, and `work` that is long.

mod applies;
mod requests;
pub mod work;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use applies::{Applies, Lap};
pub use requests::{Ranges, Requests};

/// The most buckets that a histogram has, with the last one for all that is longer.
const SLOTS: usize = 25;

/// How far buckets reach, in microseconds.
#[derive(Debug)]
enum Reach {
    /// The first so far, each of the others twice as far as the one before.
    Doubling {
        first_us: u64,
        buckets: usize,
    },
    Listed(&'static [u64]),
}

impl Reach {
    fn buckets(&self) -> usize {
        match self {
            Self::Doubling { buckets, .. } => *buckets,
            Self::Listed(limits) => limits.len(),
        }
    }

    fn limit(&self, at: usize) -> u64 {
        match self {
            Self::Doubling { first_us, .. } => first_us << at,
            Self::Listed(limits) => limits[at],
        }
    }

    /// Which bucket so many microseconds are in.
    fn bucket(&self, us: u64) -> usize {
        match self {
            Self::Doubling { first_us, buckets } => {
                let beyond = us.saturating_sub(1) / first_us;
                let at = beyond.checked_ilog2().map_or(0, |log| log as usize + 1);
                at.min(*buckets)
            }
            Self::Listed(limits) => limits.partition_point(|limit| *limit < us),
        }
    }
}

/// Durations in buckets.
#[derive(Debug)]
pub struct Histogram {
    reach: Reach,
    /// Microseconds of the unit that it is told in.
    unit_us: u32,
    counts: [AtomicU64; SLOTS],
    sum_us: AtomicU64,
}

impl Histogram {
    const fn new(first_us: u64, buckets: usize) -> Self {
        Self::reaching(Reach::Doubling { first_us, buckets })
    }

    /// One that is told in milliseconds.
    const fn of_milliseconds(first_us: u64, buckets: usize) -> Self {
        Self {
            unit_us: 1000,
            ..Self::new(first_us, buckets)
        }
    }

    /// With the limits that Prometheus' libraries have for requests: 5 ms to 10 s.
    pub const fn of_requests() -> Self {
        Self::reaching(Reach::Listed(&[
            5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
            5_000_000, 10_000_000,
        ]))
    }

    const fn reaching(reach: Reach) -> Self {
        let buckets = match &reach {
            Reach::Doubling { buckets, .. } => *buckets,
            Reach::Listed(limits) => limits.len(),
        };
        assert!(buckets < SLOTS);
        Self {
            reach,
            unit_us: 1_000_000,
            counts: [const { AtomicU64::new(0) }; SLOTS],
            sum_us: AtomicU64::new(0),
        }
    }

    /// Takes one in.
    pub fn observe(&self, took: Duration) {
        self.observe_many(took, 1);
    }

    /// Takes one in that stands for `many`.
    fn observe_many(&self, took: Duration, many: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[self.reach.bucket(us)].fetch_add(many, Ordering::Relaxed);
        self.sum_us
            .fetch_add(us.saturating_mul(many), Ordering::Relaxed);
    }

    /// Whether nothing was taken in yet.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|n| n.load(Ordering::Relaxed) == 0)
    }

    /// Adds its lines; `labels` are written as they are, and end with a comma if there are any.
    pub fn print(&self, text: &mut String, name: &str, labels: &str) {
        let (mut total, buckets) = (0, self.reach.buckets());
        for (at, count) in self.counts[..=buckets].iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let reach = if at == buckets {
                "+Inf".to_owned()
            } else {
                as_go(self.in_units(self.reach.limit(at)))
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
        let sum = self.in_units(self.sum_us.load(Ordering::Relaxed));
        let _ = writeln!(text, "{name}_sum{alone} {sum}\n{name}_count{alone} {total}");
    }

    #[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
    fn in_units(&self, us: u64) -> f64 {
        us as f64 / f64::from(self.unit_us)
    }
}

/// A limit as Go writes it, so that series of etcd and of ours are the same ones.
fn as_go(limit: f64) -> String {
    if limit < 1e6 {
        return limit.to_string();
    }
    let text = format!("{limit:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{digits}e+{exponent:0>2}")
}

/// Syncs of the log, and commits of the state.
pub static WAL_FSYNC: Histogram = Histogram::new(1000, 14);
pub static BACKEND_COMMIT: Histogram = Histogram::new(1000, 14);
/// TTLs of leases that were granted: 1 s to three months.
pub static LEASE_TTL: Histogram = Histogram::new(1_000_000, 24);
pub static LEASES_GRANTED: AtomicU64 = AtomicU64::new(0);
pub static LEASES_REVOKED: AtomicU64 = AtomicU64::new(0);
pub static LEASES_RENEWED: AtomicU64 = AtomicU64::new(0);
pub static LEASES_EXPIRED: AtomicU64 = AtomicU64::new(0);
/// Events that went on their way to watchers.
pub static EVENTS: AtomicU64 = AtomicU64::new(0);
/// Linearizable reads that were not confirmed, and those of them that waited for it to the end of their time.
pub static READS_FAILED: AtomicU64 = AtomicU64::new(0);
pub static READS_SLOW: AtomicU64 = AtomicU64::new(0);
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

    #[test]
    fn listed_limits_belong_to_their_buckets() {
        let histogram = Histogram::of_requests();
        assert!(histogram.is_empty());
        for us in [0, 5_000, 5_001, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        assert!(!histogram.is_empty());
        let mut text = String::new();
        histogram.print(&mut text, "x", "");
        for line in [
            "x_bucket{le=\"0.005\"} 2",
            "x_bucket{le=\"0.01\"} 3",
            "x_bucket{le=\"5\"} 3",
            "x_bucket{le=\"10\"} 4",
            "x_bucket{le=\"+Inf\"} 5",
            "x_count 5",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
    }

    #[test]
    fn large_limits_are_written_as_go_does() {
        assert_eq!(as_go(0.0001), "0.0001");
        assert_eq!(as_go(524_288.0), "524288");
        assert_eq!(as_go(1_048_576.0), "1.048576e+06");
        assert_eq!(as_go(8_388_608.0), "8.388608e+06");
    }
}
