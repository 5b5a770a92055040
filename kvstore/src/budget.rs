//! A bound, in bytes, on what waits somewhere in memory: who adds to it takes a share, and gives it back by dropping it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// What may wait in one place.
#[derive(Debug, Clone)]
pub struct Budget {
    most: usize,
    used: Arc<AtomicUsize>,
}

/// Bytes that wait.
#[derive(Debug)]
pub struct Share {
    bytes: usize,
    used: Arc<AtomicUsize>,
}

impl Budget {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            used: Arc::default(),
        }
    }

    /// Room for `bytes`, or None while too much waits. What is alone is let in, however large: its size is for others to bound.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let fits = |used: usize| (used == 0 || used + bytes <= self.most).then_some(used + bytes);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        Some(Share {
            bytes,
            used: Arc::clone(&self.used),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_until_something_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.take(6).unwrap();
        assert!(budget.take(5).is_none());
        let second = budget.take(4).unwrap();
        assert!(budget.take(1).is_none());
        drop(first);
        assert!(budget.take(6).is_some());
        drop(second);
        assert!(budget.take(11).is_some(), "alone");
    }
}
