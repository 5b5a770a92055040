//! Writes on their way through the cluster: what may wait, and what became of it.

use std::sync::atomic::Ordering;

use prost::Message;
use tokio::sync::oneshot;
use tonic::Status;

use super::{Facts, Handle};
use crate::apply::Response;
use crate::auth::Caller;
use crate::budget::{Budget, Share};
use crate::command::Command;
use crate::errors::StoreError;
use crate::reactor::Input;
use crate::slow::{Sketch, Underway};

/// Bytes of writes that may wait for the cluster's word, without a quorum for one; more are refused likewise.
pub(super) const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

impl Handle {
    /// Agrees on a client's command, and returns what it did and the revision after it.
    pub async fn write(
        &self,
        command: Command,
        caller: Option<Caller>,
    ) -> Result<(Response, i64), Status> {
        self.refuse_as_learner()?;
        let bytes = match &command {
            Command::Put(request) => request.encoded_len(),
            Command::DeleteRange(request) => request.encoded_len(),
            Command::Txn(request) => request.encoded_len(),
            Command::Auth(request) => request.encoded_len(),
            _ => 0,
        };
        if bytes > self.limits().max_request_bytes {
            return Err(StoreError::RequestTooLarge.into());
        }
        if self.facts().no_space.load(Ordering::Relaxed) && crate::txn::grows(&command) {
            self.refused_for_space();
            return Err(StoreError::NoSpace.into());
        }
        if command.since() > 1 && command.since() > self.core()?.membership.log_version() {
            return Err(StoreError::NotCapable.into());
        }
        let share = self.room_for(&command, bytes);
        let underway = Underway::begin(command.kind());
        let sketch = Sketch::of(&command, bytes);
        let agreed = self.agree(command, caller, share).await;
        underway.agreed(&sketch, agreed.as_ref().map(|(response, _)| response));
        agreed
    }

    /// Agrees on a command of the member's own.
    pub async fn propose(&self, command: Command) -> Result<(Response, i64), Status> {
        let share = self.room_for(&command, 0);
        self.agree(command, None, share).await
    }

    /// Room among what waits; what goes first has its own.
    fn room_for(&self, command: &Command, bytes: usize) -> Option<Share> {
        if command.goes_first() {
            return Budget::new(0).take(0);
        }
        self.shared.writes.take(bytes)
    }

    async fn agree(
        &self,
        command: Command,
        caller: Option<Caller>,
        share: Option<Share>,
    ) -> Result<(Response, i64), Status> {
        let (reply, wait) = oneshot::channel();
        let _pending = Pending::new(self);
        let queued = match share {
            Some(share) => self.queue(Input::Write {
                command,
                caller,
                reply,
                share,
            }),
            None => Err(StoreError::TooManyRequests.into()),
        };
        self.proposed(queued, wait).await
    }

    /// Waits for what became of a proposal; one that was refused or never came through counts as failed.
    pub(super) async fn proposed<T>(
        &self,
        queued: Result<(), Status>,
        wait: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, Status> {
        let answer = match queued {
            Ok(()) => self.answer(wait).await,
            Err(status) => Err(status),
        };
        let lost = [
            StoreError::Timeout,
            StoreError::Stopped,
            StoreError::TooManyRequests,
        ];
        if matches!(&answer, Err(status) if lost.iter().any(|e| status.message() == e.to_string()))
        {
            self.facts().failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}

/// Counts a proposal as pending for as long as its caller waits.
pub(super) struct Pending<'a>(&'a Facts);

impl<'a> Pending<'a> {
    pub(super) fn new(handle: &'a Handle) -> Self {
        handle.facts().pending.fetch_add(1, Ordering::Relaxed);
        Self(handle.facts())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
