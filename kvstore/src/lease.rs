//! When leases end: the leader's deadlines, and when it notes for its successors what is left of them. Grants,
//! revocations and those notes themselves are replicated (`apply.rs`).
//!
//! Pure over a clock that the caller reads: every time is milliseconds of one monotonic clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::planted::{planted, Bug};

/// A leader's view of when each lease ends.
#[derive(Debug, Default)]
pub struct Lessor {
    deadlines: HashMap<i64, Deadline>,
    /// Candidates by time; one is stale when its lease has another deadline by now.
    heap: BinaryHeap<Reverse<(u64, i64)>>,
    /// Leases by when what is left of them is noted next; stale likewise.
    notes: BinaryHeap<Reverse<(u64, i64)>>,
    min_ttl_s: i64,
    /// Milliseconds between two notes of one lease; None: none are made.
    note_every_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at_ms: u64,
    ttl_s: i64,
    /// Its revocation was proposed; not proposed again before `at_ms` passes once more.
    revoking: bool,
    /// When what is left of it is noted next; `u64::MAX`: never.
    note_at_ms: u64,
    /// Whether the log says that less than all is left.
    noted: bool,
    /// The note that is on its way into the log.
    noting: Option<i64>,
}

/// What a renewal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    pub ttl_s: i64,
    /// Whether the log says, or is about to say, that less is left: that must be taken back before the client is answered.
    pub noted: bool,
}

/// How long after a proposed revocation that is not applied it is proposed again.
const REVOKE_RETRY_MS: u64 = 1_000;

impl Lessor {
    /// `min_ttl_s`: the smallest TTL that is kept (etcd: 1.5 election timeouts, rounded up). `note_every_ms`: how often
    /// it is noted what is left of a lease.
    #[must_use]
    pub fn new(min_ttl_s: i64, note_every_ms: Option<u64>) -> Self {
        Self {
            min_ttl_s: min_ttl_s.max(1),
            note_every_ms,
            ..Self::default()
        }
    }

    /// The TTL that a request for `ttl_s` is granted.
    #[must_use]
    pub fn granted_ttl(&self, ttl_s: i64) -> i64 {
        ttl_s.max(self.min_ttl_s)
    }

    /// This member leads now: every lease gets what was left of it when that was noted last, its whole TTL if it was
    /// not, from `now_ms`, exactly. `leases`: id, TTL and what is left.
    pub fn promote(&mut self, leases: impl Iterator<Item = (i64, i64, i64)>, now_ms: u64) {
        self.demote();
        for (id, ttl_s, left_s) in leases {
            if planted(Bug::LeaseEndsByOldTerm) && self.deadlines.contains_key(&id) {
                continue;
            }
            self.begin(id, ttl_s, left_s, now_ms);
        }
    }

    /// This member leads no more: nothing ends here.
    pub fn demote(&mut self) {
        if planted(Bug::LeaseEndsByOldTerm) {
            return;
        }
        self.deadlines.clear();
        self.heap.clear();
        self.notes.clear();
    }

    /// A grant was applied.
    pub fn granted(&mut self, id: i64, ttl_s: i64, now_ms: u64) {
        self.begin(id, ttl_s, ttl_s, now_ms);
    }

    fn begin(&mut self, id: i64, ttl_s: i64, left_s: i64, now_ms: u64) {
        let at_ms = later(now_ms, left_s);
        // A lease that is over before the first note needs none.
        let every = self.note_every_ms.filter(|every| later(0, ttl_s) > *every);
        let note_at_ms = every.map_or(u64::MAX, |every| now_ms.saturating_add(every));
        self.deadlines.insert(
            id,
            Deadline {
                at_ms,
                ttl_s,
                revoking: false,
                note_at_ms,
                noted: left_s < ttl_s,
                noting: None,
            },
        );
        self.heap.push(Reverse((at_ms, id)));
        if every.is_some() {
            self.notes.push(Reverse((note_at_ms, id)));
        }
    }

    /// A note was applied. One that all is left again comes of a renewal, by this leader or the one before.
    pub fn noted(&mut self, id: i64, remaining_s: i64, now_ms: u64) {
        let Some(deadline) = self.deadlines.get_mut(&id) else {
            return;
        };
        deadline.noted = remaining_s > 0;
        if deadline.noting == Some(remaining_s) {
            deadline.noting = None;
        }
        if remaining_s == 0 {
            let _ = self.renew(id, now_ms);
        }
    }

    /// A revocation was applied; whether it was since the lease's time was over, which who leads knows.
    pub fn revoked(&mut self, id: i64) -> bool {
        let deadline = self.deadlines.remove(&id);
        deadline.is_some_and(|deadline| deadline.revoking)
    }

    /// Renew; None when the lease is unknown or already being revoked.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Option<Renewed> {
        let deadline = self
            .deadlines
            .get_mut(&id)
            .filter(|d| !d.revoking || planted(Bug::LeaseRevivedTwice))?;
        let renewed = Renewed {
            ttl_s: deadline.ttl_s,
            noted: deadline.noted || deadline.noting.is_some(),
        };
        deadline.at_ms = later(now_ms, renewed.ttl_s);
        let at_ms = deadline.at_ms;
        self.heap.push(Reverse((at_ms, id)));
        if self.heap.len() > 4 * self.deadlines.len() + 64 {
            self.heap = self
                .deadlines
                .iter()
                .map(|(id, d)| Reverse((d.at_ms, *id)))
                .collect();
        }
        Some(renewed)
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

    /// Leases of which it is time to note what is left, and that in seconds, rounded up; at most `limit`. Each comes
    /// again after a while. [`Self::is_noting`] is to be told of those that are proposed.
    pub fn due_notes(&mut self, now_ms: u64, limit: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        let Some(every) = self.note_every_ms else {
            return due;
        };
        while let Some(Reverse((at_ms, id))) = self.notes.peek().copied() {
            if at_ms > now_ms || due.len() >= limit {
                break;
            }
            self.notes.pop();
            let deadline = self.deadlines.get_mut(&id);
            let Some(deadline) = deadline.filter(|d| d.note_at_ms == at_ms) else {
                continue;
            };
            deadline.note_at_ms = now_ms.saturating_add(every.max(1));
            self.notes.push(Reverse((deadline.note_at_ms, id)));
            let left_ms = deadline.at_ms.saturating_sub(now_ms);
            let left_s = i64::try_from(left_ms.div_ceil(1000)).unwrap_or(i64::MAX);
            if !deadline.revoking && (1..deadline.ttl_s).contains(&left_s) {
                due.push((id, left_s));
            }
        }
        due
    }

    /// A note is on its way into the log.
    pub fn is_noting(&mut self, id: i64, remaining_s: i64) {
        if let Some(deadline) = self.deadlines.get_mut(&id) {
            deadline.noting = Some(remaining_s);
        }
    }

    /// When to call [`Self::expired`] and [`Self::due_notes`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let first = |heap: &BinaryHeap<Reverse<(u64, i64)>>| heap.peek().map(|next| next.0 .0);
        let both = [first(&self.heap), first(&self.notes)];
        both.into_iter().flatten().min()
    }
}

fn later(now_ms: u64, seconds: i64) -> u64 {
    now_ms.saturating_add(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_when_it_is_not_renewed_and_not_before() {
        let mut lessor = Lessor::new(1, None);
        lessor.granted(7, 3, 0);
        assert_eq!(lessor.next_deadline(), Some(3_000));
        assert_eq!(lessor.renew(7, 2_000).unwrap().ttl_s, 3);
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
    fn a_new_leader_gives_each_lease_what_was_left_of_it() {
        let mut lessor = Lessor::new(1, None);
        lessor.promote([(1, 3, 3), (2, 10, 5)].into_iter(), 100_000);
        assert!(lessor.expired(102_999, 10).is_empty());
        assert_eq!(lessor.expired(103_000, 10), [1]);
        assert!(lessor.renew(2, 104_000).unwrap().noted);
        lessor.noted(2, 0, 104_000);
        assert!(!lessor.renew(2, 104_000).unwrap().noted);
        lessor.revoked(1);
        assert_eq!(lessor.expired(114_000, 10), [2]);
        lessor.demote();
        assert!(lessor.expired(u64::MAX / 2, 10).is_empty());
    }

    #[test]
    fn what_is_left_of_long_leases_is_noted_again_and_again() {
        let mut lessor = Lessor::new(1, Some(300_000));
        lessor.granted(1, 300, 0);
        lessor.granted(2, 1_000, 500);
        assert_eq!(lessor.next_deadline(), Some(300_000), "of the short one");
        lessor.revoked(1);
        assert!(lessor.due_notes(300_499, 10).is_empty());
        assert_eq!(lessor.due_notes(300_500, 10), [(2, 700)]);
        assert!(lessor.due_notes(600_499, 10).is_empty());
        lessor.is_noting(2, 700);
        let renewed = lessor.renew(2, 400_000).unwrap();
        assert!(renewed.noted, "the note may come behind the renewal");
        lessor.noted(2, 700, 400_000);
        lessor.noted(2, 0, 400_100);
        assert!(!lessor.renew(2, 400_200).unwrap().noted);
        assert_eq!(lessor.due_notes(600_500, 10), [(2, 800)]);
        assert_eq!(lessor.expired(1_400_200, 10), [2]);
        assert!(lessor.due_notes(2_000_000, 10).is_empty(), "it is ending");
        let mut silent = Lessor::new(1, None);
        silent.granted(2, 1_000, 0);
        assert!(silent.due_notes(900_000, 10).is_empty());
    }

    #[test]
    fn many_renewals_do_not_grow_the_heap() {
        let mut lessor = Lessor::new(1, None);
        lessor.granted(1, 5, 0);
        for now in 0..10_000 {
            lessor.renew(1, now);
        }
        assert!(lessor.heap.len() <= 70);
        assert_eq!(lessor.expired(14_999, 10), [1]);
    }
}
