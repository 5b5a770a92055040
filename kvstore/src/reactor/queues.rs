//! What waits for the reactor. Renewals and revocations of leases go first, and have room of their own: a store that is
//! asked for more than it can do must neither let live what has ended nor end what lives.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::Input;
use crate::command::Proposal;
use crate::errors::StoreError;
use crate::handle::MAX_WAITING_REQUESTS;

/// Renewals and revocations that may wait beyond the requests of other kinds.
pub(super) const MAX_WAITING_FIRST: usize = 4_096;

/// The services' side.
#[derive(Clone)]
pub struct InputSender {
    first: mpsc::Sender<Input>,
    rest: mpsc::Sender<Input>,
}

/// The reactor's side.
pub struct Inputs {
    first: mpsc::Receiver<Input>,
    rest: mpsc::Receiver<Input>,
}

/// Both sides of an empty queue.
#[must_use]
pub fn inputs() -> (InputSender, Inputs) {
    let (send_first, first) = mpsc::channel(MAX_WAITING_FIRST);
    let (send_rest, rest) = mpsc::channel(MAX_WAITING_REQUESTS);
    let sender = InputSender {
        first: send_first,
        rest: send_rest,
    };
    (sender, Inputs { first, rest })
}

impl InputSender {
    /// Puts one behind its like.
    ///
    /// # Errors
    /// `TooManyRequests` when too many of its like wait, `Stopped` when there is no reactor any more.
    pub fn send(&self, input: Input) -> Result<(), StoreError> {
        let queue = if input.goes_first() {
            &self.first
        } else {
            &self.rest
        };
        queue.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })
    }
}

impl Inputs {
    /// The next one; None once nobody is left who could send one. Nothing is lost when it is dropped while it waits.
    pub async fn recv(&mut self) -> Option<Input> {
        tokio::select! {
            biased;
            Some(input) = self.first.recv() => Some(input),
            input = self.rest.recv() => input,
        }
    }

    /// The next one that is there already.
    pub fn try_recv(&mut self) -> Option<Input> {
        let first = self.first.try_recv();
        first.or_else(|_| self.rest.try_recv()).ok()
    }
}

/// Proposals that wait for a leader, or for what came before to be applied.
#[derive(Default)]
pub(super) struct Proposals {
    first: VecDeque<Proposal>,
    rest: VecDeque<Proposal>,
}

impl Proposals {
    pub(super) fn push(&mut self, proposal: Proposal) {
        if proposal.goes_first() {
            self.first.push_back(proposal);
        } else {
            self.rest.push_back(proposal);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Proposal> {
        self.first.iter().chain(&self.rest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.rest.is_empty()
    }

    /// Takes the first `count`.
    pub(super) fn drain(&mut self, count: usize) -> impl Iterator<Item = Proposal> + '_ {
        let of_first = count.min(self.first.len());
        let of_rest = (count - of_first).min(self.rest.len());
        self.first
            .drain(..of_first)
            .chain(self.rest.drain(..of_rest))
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Proposal) -> bool) {
        self.first.retain(&mut keep);
        self.rest.retain(keep);
    }
}
