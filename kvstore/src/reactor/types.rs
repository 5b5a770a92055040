//! What goes into the reactor, how it ends, and who waits in it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Status;

use super::alarms::Telling;
use super::queues::Proposals;
use crate::apply::Response;
use crate::auth::Caller;
use crate::budget::Share;
use crate::command::Command;
use crate::consensus::{Committed, Refused};
use crate::errors::StoreError;
use crate::log::SnapshotMeta;
use crate::membership::Change;
use crate::peer::Received;
use crate::wal::WalError;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the services ask of the reactor.
pub enum Input {
    Write {
        command: Command,
        caller: Option<Caller>,
        reply: Reply<(Response, i64)>,
        /// Of what may wait; it goes when nobody waits any more.
        share: Share,
    },
    Read {
        reply: Reply<()>,
        /// Whether a lease is renewed by it.
        renews: bool,
    },
    Change {
        change: Change,
        reply: Reply<()>,
    },
    Transfer {
        to: u64,
        reply: Reply<()>,
    },
}

impl Input {
    /// Whether it goes before what waits with it.
    pub(super) fn goes_first(&self) -> bool {
        match self {
            Self::Write { command, .. } => command.goes_first(),
            Self::Read { renews, .. } => *renews,
            Self::Change { .. } | Self::Transfer { .. } => false,
        }
    }
}

/// How a member's run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Stopped,
    Removed,
}

/// What stops a member against its will.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("{0}")]
    Log(#[from] WalError),
    #[error("the room on the disk can't be judged: {0}")]
    Space(#[from] std::io::Error),
    #[error("the state can't be saved: {0}")]
    State(String),
    #[error("{0}")]
    Consensus(#[from] Refused),
    #[error("the state is unusable: {0}")]
    Core(#[from] Box<Status>),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Core(Box::new(status))
    }
}

/// A snapshot that came and is not installed yet.
pub(super) struct Incoming {
    pub(super) meta: SnapshotMeta,
    pub(super) received: Received,
    pub(super) done: oneshot::Sender<Result<(), Status>>,
}

/// A write that waits for its outcome.
pub(super) struct Write {
    pub(super) reply: Reply<(Response, i64)>,
    /// The term that it was proposed in; 0 while it was not.
    pub(super) term: u64,
    /// Once it should have been applied and was not: the tick at which it is given up.
    pub(super) doubt: Option<u64>,
    /// None for the member's own.
    pub(super) _share: Option<Share>,
}

impl From<Reply<(Response, i64)>> for Write {
    fn from(reply: Reply<(Response, i64)>) -> Self {
        Self {
            reply,
            term: 0,
            doubt: None,
            _share: None,
        }
    }
}

/// A member that was told to stop: leadership goes first, then its clients.
pub(super) enum Leaving {
    HandOver { until: Instant },
    Drain { from: Instant, until: Instant },
}

/// Who waits for what.
#[derive(Default)]
pub struct Waiting {
    /// Unique across restarts: the boot's random number, counted on.
    pub(super) next_token: u64,
    pub(super) proposals: Proposals,
    pub(super) writes: HashMap<u64, Write>,
    pub(super) reads: HashMap<u64, Reply<()>>,
    pub(super) confirmed: BTreeMap<u64, Vec<u64>>,
    pub(super) changes: HashMap<u64, Reply<()>>,
    pub(super) transfer: Option<(u64, Reply<()>)>,
    pub(super) incoming: Option<Incoming>,
    /// Committed entries that wait until the disk behind the state has caught up, and the bytes that they carry.
    pub(super) unapplied: VecDeque<Committed>,
    pub(super) unapplied_bytes: usize,
    /// Ticks since the last of them was applied.
    pub(super) unapplied_ticks: usize,
    /// Reads that wait for a leader to be known.
    pub(super) leaderless: Vec<Reply<()>>,
    pub(super) ticks: u64,
    /// Whether the log waits for room on the disk.
    pub(super) log_full: bool,
    pub(super) removed_at: Option<Instant>,
    pub(super) leaving: Option<Leaving>,
    pub(super) leading: bool,
    pub(super) telling: Telling,
}

impl Waiting {
    /// Nobody waits; `boot` is a random number of this start.
    pub fn new(boot: u64) -> Self {
        Self {
            next_token: boot,
            ..Self::default()
        }
    }
}
