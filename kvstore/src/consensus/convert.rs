//! Raft-rs' messages and entries to ours, and back.

use bytes::Bytes;
use raft::eraftpb::{self, ConfChangeType, EntryType, MessageType};
use raft::StateRole;
use raft_prost::Message as _;

use super::storage::{snapshot_meta, snapshot_of};
use super::types::*;
use super::MAX_MESSAGE_BYTES;
use crate::log::{Entry, EntryKind, SnapshotMeta};

/// Gives a snapshot message the position of the state that goes with it, which may be ahead of what the leader meant.
pub fn restamp_snapshot(message: &[u8], meta: &SnapshotMeta) -> Result<Bytes, Refused> {
    let mut message =
        eraftpb::Message::decode(message).map_err(|e| Refused::Undecodable(e.to_string()))?;
    message.snapshot = Some(snapshot_of(meta));
    Ok(message.encode_to_vec().into())
}

/// The position that a snapshot message announces.
pub fn announced_snapshot(message: &[u8]) -> Result<Option<SnapshotMeta>, Refused> {
    let message =
        eraftpb::Message::decode(message).map_err(|e| Refused::Undecodable(e.to_string()))?;
    Ok(message.snapshot.as_ref().map(snapshot_meta))
}

pub(super) fn dropped(error: raft::Error) -> Refused {
    match error {
        raft::Error::ProposalDropped => Refused::TooMany,
        other => other.into(),
    }
}

pub(super) fn role(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::PreCandidate => Role::PreCandidate,
        StateRole::Candidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}

/// Raft-rs adds what it appends in one turn to one message, whatever its size: a large one becomes several here.
pub(super) fn outgoing(mut message: eraftpb::Message) -> impl Iterator<Item = Outgoing> {
    let mut entries = std::mem::take(&mut message.entries).into_iter().peekable();
    let appends = message.msg_type() == MessageType::MsgAppend;
    let mut begun = false;
    std::iter::from_fn(move || {
        if begun && entries.peek().is_none() {
            return None;
        }
        begun = true;
        let mut part = message.clone();
        let mut bytes = 0;
        while let Some(entry) = entries.peek() {
            bytes += entry.encoded_len() as u64;
            if appends && bytes > MAX_MESSAGE_BYTES && !part.entries.is_empty() {
                break;
            }
            // What follows attaches to this one.
            (message.index, message.log_term) = (entry.index, entry.term);
            part.entries.extend(entries.next());
        }
        Some(encoded(part))
    })
}

fn encoded(message: eraftpb::Message) -> Outgoing {
    let snapshot = (message.msg_type() == MessageType::MsgSnapshot)
        .then(|| message.snapshot.as_ref().map(snapshot_meta))
        .flatten();
    let once = matches!(
        message.msg_type(),
        MessageType::MsgPropose | MessageType::MsgReadIndex
    );
    Outgoing {
        to: message.to,
        bytes: message.encode_to_vec().into(),
        snapshot,
        once,
    }
}

pub(super) fn committed(entry: eraftpb::Entry) -> Option<Committed> {
    let body = match entry.entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Body::Empty,
        EntryType::EntryNormal => Body::Normal(entry.data.into()),
        _ => Body::ConfChange(
            eraftpb::ConfChange::decode(entry.data.as_slice())
                .ok()?
                .context
                .into(),
        ),
    };
    Some(Committed {
        index: entry.index,
        term: entry.term,
        body,
    })
}

/// A change of the membership as an entry of the log at (index, term).
pub fn conf_change_entry(at: (u64, u64), change: RaftChange, context: Bytes) -> Entry {
    Entry {
        index: at.0,
        term: at.1,
        kind: EntryKind::ConfChange,
        data: conf_change(change, context).encode_to_vec().into(),
    }
}

/// What was proposed as a change of the membership, where an entry holds one.
pub fn conf_change_context(entry: &Entry) -> Result<Option<Bytes>, Refused> {
    if entry.kind != EntryKind::ConfChange {
        return Ok(None);
    }
    let change = eraftpb::ConfChange::decode(&entry.data[..]);
    let change = change.map_err(|e| Refused::Undecodable(e.to_string()))?;
    Ok(Some(change.context.into()))
}

pub(super) fn conf_change(change: RaftChange, context: Bytes) -> eraftpb::ConfChange {
    let (kind, node_id) = match change {
        RaftChange::AddVoter(id) => (ConfChangeType::AddNode, id),
        RaftChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
        RaftChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let mut out = eraftpb::ConfChange {
        node_id,
        context: context.into(),
        ..Default::default()
    };
    out.set_change_type(kind);
    out
}
