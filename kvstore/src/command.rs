//! Versioned log entries: what Raft replicates. All proposals that wait together are one entry.

use bytes::Bytes;
use prost::Message;

use crate::pb::etcd;

/// The version of entries that this program writes; a larger one is refused, never guessed at.
pub const VERSION: u32 = 1;

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
    #[prost(oneof = "Command", tags = "3, 4, 5, 6, 7, 8, 9")]
    pub command: Option<Command>,
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
        version: VERSION,
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
            },
            Proposal {
                origin: 2,
                request_id: 8,
                command: Some(Command::LeaseRevoke(5)),
            },
        ];
        assert_eq!(
            decode_batch(encode_batch(proposals.clone())).unwrap(),
            proposals
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
            Err(CommandError::Newer(2))
        ));
    }
}
