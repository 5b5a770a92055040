//! What waits for the writer. It is woken for the first change after a pause, and when its time is up; not for each change
//! that comes meanwhile, since every wake takes a core from who answers clients.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::writer::Batch;

/// How long changes are gathered for one commit: its syncs would delay those of the log, which clients wait for.
const GATHER: Duration = Duration::from_millis(100);
/// Changes, and bytes of them, that are committed at once; more memory than theirs is not held.
const MOST_CHANGES: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;

/// What is committed together, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub batches: Vec<Batch>,
    pub waiting: Vec<SyncSender<()>>,
    pub bytes: usize,
    changes: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.changes >= MOST_CHANGES || self.bytes >= MOST_BYTES
    }
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    changes: usize,
    bytes: usize,
    /// Who waits until all of the batches are committed.
    flushes: Vec<SyncSender<()>>,
    /// The writer waits for anything at all.
    idle: bool,
    closed: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.flushes.is_empty()
    }

    /// Whether the writer should gather no longer.
    fn is_due(&self) -> bool {
        let full = self.changes >= MOST_CHANGES || self.bytes >= MOST_BYTES;
        full || self.closed || !self.flushes.is_empty()
    }

    fn take(&mut self) -> Gathered {
        let mut taken = Gathered::default();
        while !taken.is_full() {
            if !self.take_one(&mut taken) {
                taken.waiting = std::mem::take(&mut self.flushes);
                break;
            }
        }
        taken
    }

    fn take_one(&mut self, taken: &mut Gathered) -> bool {
        let Some(batch) = self.batches.pop_front() else {
            return false;
        };
        self.changes -= batch.changes();
        self.bytes -= batch.bytes();
        taken.changes += batch.changes();
        taken.bytes += batch.bytes();
        taken.batches.push(batch);
        true
    }
}

/// Batches in their order, from the one who applies to the one who writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hand over a batch; it is dropped when the writer has ended. Never waits.
    pub fn push(&self, batch: Batch) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.changes += batch.changes();
        state.bytes += batch.bytes();
        state.batches.push_back(batch);
        if state.idle || state.is_due() {
            drop(state);
            self.news.notify_one();
        }
    }

    /// Ask for a commit of all that was handed over: it was made when the receiver has something, and was not when the
    /// receiver's other end is gone. None when the writer has ended.
    pub fn flush(&self) -> Option<Receiver<()>> {
        let (done, wait) = mpsc::sync_channel(1);
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.flushes.push(done);
        drop(state);
        self.news.notify_one();
        Some(wait)
    }

    /// Take nothing more; what is here already is still written.
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// The writer has ended: nobody waits for what is left.
    pub fn abandon(&self) {
        let mut state = self.lock();
        *state = State {
            closed: true,
            ..State::default()
        };
    }

    /// What is to be committed next, as soon as it is worth it; None when it is closed and empty. Blocks.
    pub fn next(&self) -> Option<Gathered> {
        let mut state = self.lock();
        while state.is_empty() {
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        let end = Instant::now() + GATHER;
        while !state.is_due() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state.take())
    }

    /// The first `most` batches that are here. Does not wait.
    pub fn take_first(&self, most: usize) -> Gathered {
        let (mut state, mut taken) = (self.lock(), Gathered::default());
        while taken.batches.len() < most && state.take_one(&mut taken) {}
        taken
    }

    /// Let go who waits for a flush, since it may take long; false when it is closed.
    pub fn refuse_flushes(&self) -> bool {
        let mut state = self.lock();
        state.flushes.clear();
        !state.closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Table;
    use super::*;

    fn batch(applied: u64, changes: usize) -> Batch {
        let mut batch = Batch::default();
        batch.applied = applied;
        for _ in 0..changes {
            batch.put(Table::Meta, vec![1], vec![2]);
        }
        batch
    }

    fn applied(gathered: &Gathered) -> Vec<u64> {
        gathered.batches.iter().map(|one| one.applied).collect()
    }

    #[test]
    fn what_comes_while_it_gathers_is_taken_along() {
        let queue = Arc::new(Queue::default());
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || (Instant::now(), queue.next().unwrap(), Instant::now())
        });
        for at in 1..=3 {
            std::thread::sleep(GATHER / 10);
            queue.push(batch(at, 1));
        }
        let (begun, taken, done) = writer.join().unwrap();
        assert_eq!(applied(&taken), [1, 2, 3]);
        assert!(done - begun >= GATHER);
    }

    #[test]
    fn a_flush_waits_for_no_more_and_for_all_before_it() {
        let queue = Queue::default();
        queue.push(batch(1, MOST_CHANGES));
        queue.push(batch(2, 1));
        let wait = queue.flush().unwrap();
        let first = queue.next().unwrap();
        assert_eq!((applied(&first), first.waiting.len()), (vec![1], 0));
        let second = queue.next().unwrap();
        assert_eq!((applied(&second), second.waiting.len()), (vec![2], 1));
        second.waiting[0].send(()).unwrap();
        wait.recv().unwrap();
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let queue = Queue::default();
        queue.push(batch(1, 1));
        queue.close();
        queue.push(batch(2, 1));
        assert!(queue.flush().is_none() && !queue.refuse_flushes());
        assert_eq!(applied(&queue.next().unwrap()), [1]);
        assert!(queue.next().is_none());
    }

    #[test]
    fn whoever_waits_hears_that_the_writer_has_ended() {
        let queue = Queue::default();
        queue.push(batch(1, 1));
        let wait = queue.flush().unwrap();
        queue.abandon();
        assert!(wait.recv().is_err() && queue.next().is_none());
    }
}
