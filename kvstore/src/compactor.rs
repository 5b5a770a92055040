//! Compaction by itself (etcd's `--auto-compaction-*`): when, and up to which revision.
//!
//! Pure over a clock that the caller reads: every time is milliseconds of one monotonic clock. Not here: the compaction
//! itself (`apply`), and who asks for it (`member`).

use std::collections::VecDeque;

use crate::config::ConfigError;

/// How often it is looked at the revision (etcd's `revInterval`).
const REVISION_LOOK_MS: u64 = 5 * 60 * 1000;
/// A period is noted in so many parts, and what fails is tried again after one of them.
const PARTS: u64 = 10;
/// However long the period, it is compacted as often as this.
const LONGEST_PAUSE_MS: u64 = 60 * 60 * 1000;

/// What is kept of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// What held within so many milliseconds.
    Period(u64),
    /// So many revisions.
    Revisions(i64),
}

impl Retention {
    /// From etcd's two flags, the amount in milliseconds or revisions; None when nothing is to be compacted.
    ///
    /// # Errors
    /// For another mode than etcd's two.
    pub fn of(mode: &str, amount: u64) -> Result<Option<Self>, ConfigError> {
        let retention = match mode {
            "periodic" => Self::Period(amount),
            "revision" => Self::Revisions(i64::try_from(amount).unwrap_or(i64::MAX)),
            "" => return Err(ConfigError("undefined auto-compaction-mode".into())),
            _ => {
                return Err(ConfigError(format!(
                    "unknown auto-compaction-mode {mode:?}"
                )))
            }
        };
        Ok((amount > 0).then_some(retention))
    }
}

/// Says when to compact. Each member notes the past, so that any can lead; only the leader compacts.
#[derive(Debug)]
pub struct Compactor {
    retention: Retention,
    /// One for each part of a period, the oldest first; as many as the period has, and one more: the oldest is a little
    /// older than the period, as etcd's.
    noted: VecDeque<i64>,
    next_ms: u64,
    done_ms: u64,
    done: i64,
    /// Not before the first whole period is over.
    pause_ms: u64,
}

impl Compactor {
    /// Begins to note the past at `now_ms`, when the state is at `revision`.
    #[must_use]
    pub fn new(retention: Retention, now_ms: u64, revision: i64) -> Self {
        let mut compactor = Self {
            retention,
            noted: VecDeque::from([revision]),
            next_ms: now_ms,
            done_ms: now_ms,
            done: 0,
            pause_ms: match retention {
                Retention::Period(period_ms) => period_ms,
                Retention::Revisions(_) => 0,
            },
        };
        compactor.next_ms += compactor.look_ms();
        compactor
    }

    fn look_ms(&self) -> u64 {
        match self.retention {
            Retention::Period(period_ms) => (period_ms.min(LONGEST_PAUSE_MS) / PARTS).max(1),
            Retention::Revisions(_) => REVISION_LOOK_MS,
        }
    }

    /// When [`Self::look`] is to be called next.
    #[must_use]
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// It is `now_ms`, and the state is at `revision`: up to where to compact, if it is time for that and this member
    /// leads. [`Self::compacted`] is to be told when that is done; until then it is tried again.
    pub fn look(&mut self, now_ms: u64, revision: i64, leads: bool) -> Option<i64> {
        self.next_ms = now_ms + self.look_ms();
        let wanted = match self.retention {
            Retention::Period(period_ms) => {
                let oldest = self.noted.front().copied().unwrap_or(revision);
                let due = leads && now_ms.saturating_sub(self.done_ms) >= self.pause_ms;
                self.noted.push_back(revision);
                let most = (period_ms / self.look_ms()) as usize + 1;
                while self.noted.len() > most {
                    self.noted.pop_front();
                }
                (due && oldest != self.done).then_some(oldest)
            }
            Retention::Revisions(kept) => {
                let end = revision - kept;
                (leads && end > 0 && end != self.done).then_some(end)
            }
        };
        if let (Some(_), Retention::Period(period_ms)) = (wanted, self.retention) {
            self.pause_ms = period_ms.min(LONGEST_PAUSE_MS);
        }
        wanted
    }

    /// Up to here it was compacted, by this or by somebody else.
    pub fn compacted(&mut self, revision: i64, now_ms: u64) {
        (self.done, self.done_ms) = (revision, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    /// Runs until `end` with a revision a minute; when it was compacted and up to where.
    fn run(
        compactor: &mut Compactor,
        end: u64,
        leads: impl Fn(u64) -> bool,
        works: impl Fn(u64) -> bool,
    ) -> Vec<(u64, i64)> {
        let mut done = Vec::new();
        while compactor.next_ms() <= end {
            let now = compactor.next_ms();
            if let Some(revision) = compactor.look(now, at(now), leads(now)) {
                if works(now) {
                    compactor.compacted(revision, now);
                    done.push((now / MINUTE, revision));
                }
            }
        }
        done
    }

    fn at(now_ms: u64) -> i64 {
        1 + (now_ms / MINUTE) as i64
    }

    fn begun(retention: Retention) -> Compactor {
        Compactor::new(retention, 0, at(0))
    }

    #[test]
    fn an_hour_is_kept_by_compacting_each_hour() {
        let done = run(
            &mut begun(Retention::Period(HOUR)),
            4 * HOUR,
            |_| true,
            |_| true,
        );
        assert_eq!(done, [(60, 1), (120, 55), (180, 115), (240, 175)]);
    }

    #[test]
    fn a_day_is_kept_by_compacting_each_hour_from_the_second_day_on() {
        let mut compactor = begun(Retention::Period(24 * HOUR));
        let done = run(&mut compactor, 27 * HOUR, |_| true, |_| true);
        assert_eq!(
            done,
            [(1440, 1), (1500, 55), (1560, 115), (1620, 175)],
            "minutes and revisions"
        );
        assert_eq!(compactor.noted.len(), 241);
    }

    #[test]
    fn a_short_period_is_compacted_as_often() {
        let mut compactor = begun(Retention::Period(10 * MINUTE));
        let done = run(&mut compactor, 31 * MINUTE, |_| true, |_| true);
        assert_eq!(done, [(10, 1), (20, 10), (30, 20)]);
    }

    #[test]
    fn what_failed_is_tried_again_soon_with_what_is_old_by_then() {
        let mut compactor = begun(Retention::Period(HOUR));
        let done = run(&mut compactor, 3 * HOUR, |_| true, |now| now >= 70 * MINUTE);
        assert_eq!(done, [(72, 7), (132, 67)]);
    }

    #[test]
    fn a_state_at_rest_is_compacted_once() {
        let mut compactor = begun(Retention::Period(10 * MINUTE));
        let mut asked = Vec::new();
        while compactor.next_ms() <= 60 * MINUTE {
            let now = compactor.next_ms();
            if let Some(revision) = compactor.look(now, 7, true) {
                compactor.compacted(revision, now);
                asked.push(revision);
            }
        }
        assert_eq!(asked, [1, 7]);
    }

    #[test]
    fn only_the_leader_compacts_and_a_new_one_knows_the_past() {
        for (retention, expected) in [
            (Retention::Period(HOUR), (150, 85)),
            (Retention::Revisions(20), (150, 131)),
        ] {
            let mut compactor = begun(retention);
            let done = run(
                &mut compactor,
                151 * MINUTE,
                |now| now >= 149 * MINUTE,
                |_| true,
            );
            assert_eq!(done, [expected], "{retention:?}");
        }
    }

    #[test]
    fn revisions_are_counted_every_five_minutes() {
        let mut compactor = begun(Retention::Revisions(12));
        let done = run(&mut compactor, 25 * MINUTE, |_| true, |_| true);
        assert_eq!(done, [(15, 4), (20, 9), (25, 14)]);
    }

    #[test]
    fn the_flags_are_etcds() {
        let of = |mode, amount| Retention::of(mode, amount).map_err(|e| e.to_string());
        assert_eq!(of("periodic", 0), Ok(None));
        assert_eq!(of("periodic", 5), Ok(Some(Retention::Period(5))));
        assert_eq!(of("revision", 5), Ok(Some(Retention::Revisions(5))));
        assert_eq!(
            of("period", 5),
            Err("unknown auto-compaction-mode \"period\"".to_owned())
        );
        assert!(of("", 0).is_err());
    }
}
