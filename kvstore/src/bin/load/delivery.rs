//! How long events take from the call that makes them to a watcher: the moment of the call travels in the value, and the
//! times are counted in buckets, since ten thousand watchers see too many events to keep each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Buckets of a doubling: a bucket is at most a thirty-second as wide as what it holds.
const STEPS: usize = 32;
/// Bits of a time that a bucket tells.
const BITS: u32 = STEPS.ilog2() + 1;
const BUCKETS: usize = 64 * STEPS;
const STAMP: usize = size_of::<u64>();

/// Counts delivery times in microseconds.
pub struct Delivery {
    origin: Instant,
    counts: Vec<AtomicU64>,
}

impl Delivery {
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// `value` with the time of now at its start; as it is where it has no room for one.
    pub fn stamp(&self, value: &Bytes) -> Bytes {
        if value.len() < STAMP {
            return value.clone();
        }
        let mut stamped = value.to_vec();
        stamped[..STAMP].copy_from_slice(&self.now().to_be_bytes());
        stamped.into()
    }

    /// Microseconds since all began, as stamps have them.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// An event with this value came at `now`.
    pub fn came(&self, value: &[u8], now: u64) {
        if let Some(stamp) = value.first_chunk::<STAMP>() {
            let took = now.saturating_sub(u64::from_be_bytes(*stamp));
            self.counts[bucket(took)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The time that this part (0 to 1) of the events stays below or reaches; 0 where none came.
    pub fn at(&self, part: f64) -> Duration {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let mut left = (counts.iter().sum::<u64>() as f64 * part) as u64;
        for (index, &count) in counts.iter().enumerate() {
            if count > left {
                return Duration::from_micros(lowest(index));
            }
            left -= count;
        }
        Duration::ZERO
    }
}

fn bucket(micros: u64) -> usize {
    let doublings = (u64::BITS - micros.leading_zeros()).saturating_sub(BITS) as usize;
    doublings * STEPS + (micros >> doublings) as usize
}

/// The shortest time that a bucket holds.
fn lowest(bucket: usize) -> u64 {
    let doublings = (bucket / STEPS).saturating_sub(1);
    ((bucket - doublings * STEPS) as u64) << doublings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_within_a_thirtysecond_of_its_lowest() {
        let mut last = 0;
        for micros in (0..5_000).chain([1 << 20, (1 << 40) + 12_345, u64::MAX / 2, u64::MAX]) {
            let index = bucket(micros);
            let low = lowest(index);
            assert!(index >= last && index < BUCKETS, "{micros}: {index}");
            assert!(
                low <= micros && micros - low <= micros / STEPS as u64,
                "{micros}: {low}"
            );
            last = index;
        }
    }

    #[test]
    fn parts_of_the_events_are_told_by_the_time_they_took() {
        let delivery = Delivery::new();
        assert_eq!(delivery.at(0.5), Duration::ZERO);
        for took in 1..=100_u64 {
            delivery.came(&1_000_u64.to_be_bytes(), 1_000 + took * 10);
        }
        delivery.came(b"short", 5);
        assert_eq!(delivery.at(0.0), Duration::from_micros(10));
        let (half, most) = (delivery.at(0.5).as_micros(), delivery.at(0.99).as_micros());
        assert!((493..=510).contains(&half), "{half}");
        assert!((960..=1_000).contains(&most), "{most}");
    }

    #[test]
    fn a_stamp_takes_the_start_of_a_value_that_has_room() {
        let delivery = Delivery::new();
        let stamped = delivery.stamp(&Bytes::from_static(b"xxxxxxxxxyz"));
        assert_eq!(&stamped[STAMP..], b"xyz");
        delivery.came(&stamped, delivery.now());
        assert!(delivery.at(0.5) < Duration::from_secs(1));
        assert_eq!(delivery.stamp(&Bytes::from_static(b"x")), "x");
    }
}
