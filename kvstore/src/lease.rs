//! When leases end: the leader's deadlines. Grants and revocations themselves are replicated (`apply.rs`).
//!
//! Pure over a clock that the caller reads: every time is milliseconds of one monotonic clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A leader's view of when each lease ends.
#[derive(Debug, Default)]
pub struct Lessor {
    deadlines: HashMap<i64, Deadline>,
    /// Candidates by time; one is stale when its lease has another deadline by now.
    heap: BinaryHeap<Reverse<(u64, i64)>>,
    min_ttl_s: i64,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at_ms: u64,
    ttl_s: i64,
    /// Its revocation was proposed; not proposed again before `at_ms` passes once more.
    revoking: bool,
}

/// How long after a proposed revocation that is not applied it is proposed again.
const REVOKE_RETRY_MS: u64 = 1_000;

impl Lessor {
    /// `min_ttl_s`: the smallest TTL that is kept (etcd: 1.5 election timeouts, rounded up).
    #[must_use]
    pub fn new(min_ttl_s: i64) -> Self {
        Self {
            min_ttl_s: min_ttl_s.max(1),
            ..Self::default()
        }
    }

    /// The TTL that a request for `ttl_s` is granted.
    #[must_use]
    pub fn granted_ttl(&self, ttl_s: i64) -> i64 {
        ttl_s.max(self.min_ttl_s)
    }

    /// This member leads now: every lease gets its full TTL from `now_ms`, exactly.
    pub fn promote(&mut self, leases: impl Iterator<Item = (i64, i64)>, now_ms: u64) {
        self.demote();
        for (id, ttl_s) in leases {
            self.granted(id, ttl_s, now_ms);
        }
    }

    /// This member leads no more: nothing ends here.
    pub fn demote(&mut self) {
        self.deadlines.clear();
        self.heap.clear();
    }

    /// A grant was applied.
    pub fn granted(&mut self, id: i64, ttl_s: i64, now_ms: u64) {
        let at_ms = now_ms.saturating_add(u64::try_from(ttl_s).unwrap_or(0).saturating_mul(1000));
        self.deadlines.insert(
            id,
            Deadline {
                at_ms,
                ttl_s,
                revoking: false,
            },
        );
        self.heap.push(Reverse((at_ms, id)));
    }

    /// A revocation was applied.
    pub fn revoked(&mut self, id: i64) {
        self.deadlines.remove(&id);
    }

    /// Renew; the TTL in seconds, or None when the lease is unknown or already being revoked.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Option<i64> {
        let deadline = self.deadlines.get_mut(&id).filter(|d| !d.revoking)?;
        let ttl_s = deadline.ttl_s;
        deadline.at_ms = now_ms + u64::try_from(ttl_s).unwrap_or(0) * 1000;
        let at_ms = deadline.at_ms;
        self.heap.push(Reverse((at_ms, id)));
        if self.heap.len() > 4 * self.deadlines.len() + 64 {
            self.heap = self
                .deadlines
                .iter()
                .map(|(id, d)| Reverse((d.at_ms, *id)))
                .collect();
        }
        Some(ttl_s)
    }

    /// Seconds left and seconds granted; None when unknown. What is past its end has none left.
    #[must_use]
    pub fn time_to_live(&self, id: i64, now_ms: u64) -> Option<(i64, i64)> {
        let deadline = self.deadlines.get(&id)?;
        let left_ms = if deadline.revoking {
            0
        } else {
            deadline.at_ms.saturating_sub(now_ms)
        };
        Some((
            i64::try_from(left_ms / 1000).unwrap_or(i64::MAX),
            deadline.ttl_s,
        ))
    }

    /// When a lease ends, on the caller's clock; None when unknown.
    #[must_use]
    pub fn ends_at(&self, id: i64) -> Option<u64> {
        self.deadlines.get(&id).map(|deadline| deadline.at_ms)
    }

    /// Leases that end by `now_ms`, at most `limit`; each is told again after a while, until revoked.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<i64> {
        let mut ended = Vec::new();
        while let Some(Reverse((at_ms, id))) = self.heap.peek().copied() {
            if at_ms > now_ms || ended.len() >= limit {
                break;
            }
            self.heap.pop();
            if let Some(deadline) = self.deadlines.get_mut(&id).filter(|d| d.at_ms == at_ms) {
                deadline.revoking = true;
                deadline.at_ms = now_ms + REVOKE_RETRY_MS;
                self.heap.push(Reverse((deadline.at_ms, id)));
                ended.push(id);
            }
        }
        ended
    }

    /// When to call [`Self::expired`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_when_it_is_not_renewed_and_not_before() {
        let mut lessor = Lessor::new(1);
        lessor.granted(7, 3, 0);
        assert_eq!(lessor.next_deadline(), Some(3_000));
        assert_eq!(lessor.renew(7, 2_000), Some(3));
        assert!(lessor.expired(4_999, 10).is_empty());
        assert_eq!(lessor.time_to_live(7, 4_000), Some((1, 3)));
        assert_eq!(lessor.expired(5_000, 10), [7]);
        assert_eq!(
            lessor.renew(7, 5_000),
            None,
            "a lease that is being revoked can't be renewed"
        );
        assert!(lessor.expired(5_500, 10).is_empty());
        assert_eq!(
            lessor.expired(6_000, 10),
            [7],
            "told again while it is not revoked"
        );
        lessor.revoked(7);
        assert!(lessor.expired(60_000, 10).is_empty());
    }

    #[test]
    fn a_new_leader_gives_each_lease_its_full_ttl() {
        let mut lessor = Lessor::new(1);
        lessor.promote([(1, 3), (2, 10)].into_iter(), 100_000);
        assert!(lessor.expired(102_999, 10).is_empty());
        assert_eq!(lessor.expired(103_000, 10), [1]);
        lessor.demote();
        assert!(lessor.expired(u64::MAX / 2, 10).is_empty());
    }

    #[test]
    fn many_renewals_do_not_grow_the_heap() {
        let mut lessor = Lessor::new(1);
        lessor.granted(1, 5, 0);
        for now in 0..10_000 {
            lessor.renew(1, now);
        }
        assert!(lessor.heap.len() <= 70);
        assert_eq!(lessor.expired(14_999, 10), [1]);
    }
}
