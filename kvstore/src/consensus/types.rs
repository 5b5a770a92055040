//! What goes into the consensus and what comes out of it, as plain values.

use bytes::Bytes;

use crate::log::{ConfState, Entry, HardState, SnapshotMeta};

/// Why the consensus core refuses.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: too many requests")]
    TooMany,
    #[error("another change of the membership is not applied yet")]
    ConfChangePending,
    #[error("a raft message does not decode: {0}")]
    Undecodable(String),
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
}

/// What was found on disk: the configuration and position at `applied`, and the entries after `start`.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    pub hard_state: HardState,
    /// The configuration as of `applied`.
    pub conf: ConfState,
    pub applied: u64,
    /// Index and term just before the first entry.
    pub start: (u64, u64),
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Seeds the randomised election timeouts.
    pub seed: u64,
    /// Differs at each start of a member, so that no read context ever comes back.
    pub boot_nonce: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// A message for another member, encoded.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub to: u64,
    pub bytes: Bytes,
    /// Set when the state must travel with it; `restamp_snapshot` gives it the position of the state actually sent.
    pub snapshot: Option<SnapshotMeta>,
    /// A proposal or read on its way to the leader: must never be delivered twice.
    pub once: bool,
}

/// What must be durable before `on_persisted(number)`.
#[derive(Debug, Clone)]
pub struct Append {
    pub number: u64,
    pub hard_state: HardState,
    /// Installed before the entries: everything in the log before it is void.
    pub snapshot: Option<SnapshotMeta>,
    /// The first entry may overwrite entries of the same and later index.
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A leader's first entry.
    Empty,
    Normal(Bytes),
    /// The membership change that was proposed; the caller judges it and calls `apply_conf_change`, or not.
    ConfChange(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub index: u64,
    pub term: u64,
    pub body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftChange {
    AddVoter(u64),
    AddLearner(u64),
    Remove(u64),
}

/// Entries that this member had confirmed to a leader, and that its log no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Its log's last position.
    pub last_index: u64,
    /// The last that it had confirmed, as far as the leader says.
    pub confirmed: u64,
}

#[derive(Debug, Default)]
pub struct Output {
    pub messages: Vec<Outgoing>,
    pub append: Option<Append>,
    pub committed: Vec<Committed>,
    /// Reads that may be answered once `applied` has reached the index.
    pub reads: Vec<(u64, Vec<u64>)>,
    /// Reads given up since no leader is known.
    pub failed_reads: Vec<u64>,
    /// Leader (0: none) and own role, when one changed.
    pub role: Option<(u64, Role)>,
    /// What was found missing since the last output.
    pub loss: Option<Loss>,
}

#[derive(Debug, Clone, Default)]
pub struct PeerProgress {
    pub id: u64,
    pub matched: u64,
    pub next: u64,
    /// The position after which its entries begin that it may still ask for; where the log has been cut beyond it, it
    /// gets a snapshot.
    pub needs: u64,
    pub recent_active: bool,
    pub learner: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Status {
    pub id: u64,
    pub term: u64,
    pub leader: u64,
    pub role: Role,
    pub commit: u64,
    pub applied: u64,
    pub last_index: u64,
    pub first_index: u64,
    /// Only a leader knows it.
    pub progress: Vec<PeerProgress>,
}
