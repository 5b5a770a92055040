//! Versioned log entries: what Raft replicates. All proposals that wait together are one entry.

use bytes::Bytes;
use prost::Message;

use crate::auth::{AuthCommand, Caller};
use crate::pb::etcd;

/// The newest version of entries that this program knows; a larger one is refused, never guessed at. An entry has the
/// lowest version that knows all that is in it.
pub const VERSION: u32 = 3;
/// The first version with authentication.
const AUTH_VERSION: u32 = 2;
/// The first version with alarms and downgrades.
const ALARM_VERSION: u32 = 2;
/// The first version with checkpoints of leases.
const CHECKPOINT_VERSION: u32 = 3;

/// Why an entry can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("log entry of version {0}, but this program knows versions up to {VERSION}: install the newer one")]
    Newer(u32),
    #[error("log entry can't be decoded: {0}")]
    Damaged(#[from] prost::DecodeError),
    #[error("log entry holds a command that this program does not know: install the newer one")]
    UnknownCommand,
}

/// A change of the replicated state.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Command {
    #[prost(message, tag = "3")]
    Put(etcd::PutRequest),
    #[prost(message, tag = "4")]
    DeleteRange(etcd::DeleteRangeRequest),
    #[prost(message, tag = "5")]
    Txn(etcd::TxnRequest),
    #[prost(int64, tag = "6")]
    Compact(i64),
    #[prost(message, tag = "7")]
    LeaseGrant(etcd::LeaseGrantRequest),
    #[prost(int64, tag = "8")]
    LeaseRevoke(i64),
    #[prost(message, tag = "9")]
    MemberAttributes(MemberAttributes),
    #[prost(message, tag = "20")]
    Auth(AuthCommand),
    #[prost(message, tag = "10")]
    Alarm(etcd::AlarmRequest),
    #[prost(message, tag = "11")]
    Downgrade(DowngradeTo),
    #[prost(message, tag = "12")]
    LeaseCheckpoint(LeaseCheckpoints),
}

impl Command {
    /// The first version of entries that may hold it; it is proposed only where every member knows that.
    #[must_use]
    pub fn since(&self) -> u32 {
        match self {
            Self::Auth(_) => AUTH_VERSION,
            Self::Alarm(_) | Self::Downgrade(_) => ALARM_VERSION,
            Self::LeaseCheckpoint(_) => CHECKPOINT_VERSION,
            _ => 1,
        }
    }

    /// What etcd calls its kind, in figures.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Put(_) => "Put",
            Self::DeleteRange(_) => "DeleteRange",
            Self::Txn(_) => "Txn",
            Self::Compact(_) => "Compaction",
            Self::LeaseGrant(_) => "LeaseGrant",
            Self::LeaseRevoke(_) => "LeaseRevoke",
            Self::MemberAttributes(_) => "ClusterMemberAttrSet",
            Self::Auth(command) => command.kind(),
            Self::Alarm(_) => "Alarm",
            Self::Downgrade(_) => "DowngradeInfoSet",
            Self::LeaseCheckpoint(_) => "LeaseCheckpoint",
        }
    }

    /// Whether it goes before what waits with it.
    #[must_use]
    pub fn goes_first(&self) -> bool {
        matches!(self, Self::LeaseRevoke(_) | Self::LeaseCheckpoint(_))
    }
}

/// What a member says of itself once it runs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberAttributes {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, repeated, tag = "3")]
    pub client_urls: Vec<String>,
    /// The newest version of entries that it knows; 0 from a program that did not say so.
    #[prost(uint32, tag = "4")]
    pub log_version: u32,
}

/// The version that the cluster is to go back to; empty when it no longer is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DowngradeTo {
    #[prost(string, tag = "1")]
    pub version: String,
}

/// What is left of some leases, so that a new leader does not give them their whole TTL again.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseCheckpoints {
    #[prost(message, repeated, tag = "1")]
    pub checkpoints: Vec<LeaseCheckpoint>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseCheckpoint {
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds; 0 once it was renewed: all of its TTL.
    #[prost(int64, tag = "2")]
    pub remaining_ttl: i64,
}

/// A command, and who waits for its outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Proposal {
    /// The member whose client asked.
    #[prost(fixed64, tag = "1")]
    pub origin: u64,
    /// Unique at that member, across its restarts too.
    #[prost(fixed64, tag = "2")]
    pub request_id: u64,
    #[prost(oneof = "Command", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20")]
    pub command: Option<Command>,
    /// Who asks, where authentication is on.
    #[prost(message, optional, tag = "21")]
    pub caller: Option<Caller>,
}

impl Proposal {
    pub(crate) fn goes_first(&self) -> bool {
        self.command.as_ref().is_some_and(Command::goes_first)
    }

    fn since(&self) -> u32 {
        let command = self.command.as_ref().map_or(1, Command::since);
        if self.caller.is_some() {
            command.max(AUTH_VERSION)
        } else {
            command
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    proposals: Vec<Proposal>,
}

/// One log entry from proposals that waited together.
#[must_use]
pub fn encode_batch(proposals: Vec<Proposal>) -> Bytes {
    Entry {
        version: proposals.iter().map(Proposal::since).max().unwrap_or(1),
        proposals,
    }
    .encode_to_vec()
    .into()
}

/// The proposals of an entry.
///
/// # Errors
/// When it was written by a newer program, or is damaged.
pub fn decode_batch(data: Bytes) -> Result<Vec<Proposal>, CommandError> {
    let entry = Entry::decode(data)?;
    if entry.version > VERSION {
        return Err(CommandError::Newer(entry.version));
    }
    if entry.proposals.iter().any(|p| p.command.is_none()) {
        return Err(CommandError::UnknownCommand);
    }
    Ok(entry.proposals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_was() {
        let put = etcd::PutRequest {
            key: "k".into(),
            value: "v".into(),
            ..Default::default()
        };
        let proposals = vec![
            Proposal {
                origin: 1,
                request_id: 7,
                command: Some(Command::Put(put)),
                caller: None,
            },
            Proposal {
                origin: 2,
                request_id: 8,
                command: Some(Command::LeaseRevoke(5)),
                caller: None,
            },
        ];
        let data = encode_batch(proposals.clone());
        assert_eq!(Entry::decode(data.clone()).unwrap().version, 1);
        assert_eq!(decode_batch(data).unwrap(), proposals);
    }

    #[test]
    fn an_entry_is_as_old_as_what_is_in_it_allows() {
        let version = |proposal| Entry::decode(encode_batch(vec![proposal])).unwrap().version;
        let revoke = Proposal {
            command: Some(Command::LeaseRevoke(5)),
            ..Default::default()
        };
        let asked = Proposal {
            caller: Some(Caller::default()),
            ..revoke.clone()
        };
        let auth = Proposal {
            command: Some(Command::Auth(AuthCommand::default())),
            ..Default::default()
        };
        let alarm = Proposal {
            command: Some(Command::Alarm(etcd::AlarmRequest::default())),
            ..Default::default()
        };
        let checkpoint = Proposal {
            command: Some(Command::LeaseCheckpoint(LeaseCheckpoints::default())),
            ..Default::default()
        };
        assert_eq!([version(revoke), version(asked)], [1, 2]);
        assert_eq!(
            [version(auth), version(alarm), version(checkpoint)],
            [2, 2, 3]
        );
    }

    #[test]
    fn a_newer_entry_is_refused() {
        let data = Entry {
            version: VERSION + 1,
            proposals: vec![],
        }
        .encode_to_vec();
        assert!(matches!(
            decode_batch(data.into()),
            Err(CommandError::Newer(n)) if n == VERSION + 1
        ));
    }
}
