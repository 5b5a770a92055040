//! Linearizable reads that wait, gathered into rounds. A round's context is never used twice, not even for a retry.

use std::collections::HashMap;

use crate::planted::{planted, Bug};

/// Reads that may wait at one member.
const MAX_READS: usize = 65_536;
/// Rounds under way at once; reads that come meanwhile share the next.
const MAX_ROUNDS: usize = 2;
/// Ticks after which an unanswered round is asked again: it, its answer or its heartbeats may be lost.
const RETRY_TICKS: u64 = 3;

struct Round {
    tokens: Vec<u64>,
    started: u64,
}

pub(crate) struct Reads {
    member: u64,
    nonce: u64,
    sequence: u64,
    now: u64,
    patience_ticks: u64,
    since_leader: u64,
    waiting: Vec<u64>,
    rounds: HashMap<u64, Round>,
    total: usize,
}

impl Reads {
    pub(crate) fn new(member: u64, nonce: u64, election_ticks: usize) -> Self {
        Self {
            member,
            nonce,
            sequence: 0,
            now: 0,
            patience_ticks: 2 * election_ticks as u64,
            since_leader: 0,
            waiting: Vec::new(),
            rounds: HashMap::new(),
            total: 0,
        }
    }

    pub(crate) fn tick(&mut self) {
        self.now += 1;
    }

    /// False when too many wait already.
    pub(crate) fn register(&mut self, token: u64) -> bool {
        if self.total >= MAX_READS {
            return false;
        }
        self.total += 1;
        self.waiting.push(token);
        true
    }

    /// Takes what waits in no round.
    pub(crate) fn take_waiting(&mut self) -> Vec<u64> {
        self.total -= self.waiting.len();
        std::mem::take(&mut self.waiting)
    }

    /// No leader is known: after a while all reads are given up.
    pub(crate) fn give_up(&mut self) -> Vec<u64> {
        if self.total == 0 || self.now < self.since_leader + self.patience_ticks {
            return Vec::new();
        }
        let mut rounds: Vec<_> = self.rounds.drain().collect();
        rounds.sort_by_key(|(sequence, _)| *sequence);
        let mut tokens: Vec<u64> = rounds.into_iter().flat_map(|(_, r)| r.tokens).collect();
        tokens.append(&mut self.waiting);
        self.total = 0;
        tokens
    }

    /// The context of a round to start now, if one is due.
    pub(crate) fn next_round(&mut self) -> Option<Vec<u8>> {
        self.since_leader = self.now;
        let mut late: Vec<u64> = self
            .rounds
            .iter()
            .filter(|(_, r)| r.started + RETRY_TICKS <= self.now)
            .map(|(s, _)| *s)
            .collect();
        late.sort_unstable();
        for sequence in late {
            self.waiting.extend(
                self.rounds
                    .remove(&sequence)
                    .into_iter()
                    .flat_map(|r| r.tokens),
            );
        }
        if self.waiting.is_empty() || self.rounds.len() >= MAX_ROUNDS {
            return None;
        }
        self.sequence = if planted(Bug::ReusedReadContext) {
            1
        } else {
            self.sequence + 1
        };
        let round = self.rounds.entry(self.sequence).or_insert(Round {
            tokens: Vec::new(),
            started: self.now,
        });
        round.tokens.append(&mut self.waiting);
        Some(self.context())
    }

    /// The reads that this answer serves: none when it is another boot's, or of a round already asked again.
    pub(crate) fn answered(&mut self, context: &[u8]) -> Option<Vec<u64>> {
        let prefix = self.context();
        let (mine, sequence) = context.split_at_checked(16)?;
        if mine != &prefix[..16] {
            return None;
        }
        let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
        let round = self.rounds.remove(&sequence)?;
        self.total -= round.tokens.len();
        Some(round.tokens)
    }

    fn context(&self) -> Vec<u8> {
        [self.member, self.nonce, self.sequence]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_takes_a_new_context_and_the_old_answer_serves_nothing() {
        let mut reads = Reads::new(1, 7, 10);
        assert!(reads.register(100));
        let first = reads.next_round().unwrap();
        assert!(reads.next_round().is_none());
        (0..RETRY_TICKS).for_each(|_| reads.tick());
        let second = reads.next_round().unwrap();
        assert_ne!(first, second);
        assert_eq!(reads.answered(&first), None);
        assert_eq!(reads.answered(&second), Some(vec![100]));
        assert_eq!(reads.total, 0);
    }

    #[test]
    fn reads_share_a_round_and_a_boot_does_not_take_the_answers_of_another() {
        let mut reads = Reads::new(1, 7, 10);
        assert!(reads.register(1) && reads.register(2));
        let context = reads.next_round().unwrap();
        let mut reborn = Reads::new(1, 8, 10);
        assert!(reborn.register(3));
        assert!(reborn.next_round().is_some());
        assert_eq!(reborn.answered(&context), None);
        assert_eq!(reads.answered(&context), Some(vec![1, 2]));
    }
}
