//! Names and encodings of etcd's buckets (etcd 3.4 to 3.7; `server/storage/schema` there).

use prost::Message;
use serde::Serialize;

use crate::membership::{Member, Membership};
use crate::mvcc::Rev;

pub const KEY: &str = "key";
pub const LEASE: &str = "lease";
pub const META: &str = "meta";
pub const MEMBERS: &str = "members";
pub const MEMBERS_REMOVED: &str = "members_removed";
pub const AUTH: &str = "auth";
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
pub const AUTH_REVISION: &[u8] = b"authRevision";
pub const AUTH_USERS: &str = "authUsers";
pub const AUTH_ROLES: &str = "authRoles";
/// Those that etcd has from its first start on.
pub const BUCKETS: [&str; 10] = [
    ALARM,
    AUTH,
    AUTH_ROLES,
    AUTH_USERS,
    "cluster",
    KEY,
    LEASE,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
];
pub const ALARM: &str = "alarm";
/// Kept as they are; `auth` reads and writes them.
pub const KEPT: [&str; 3] = [AUTH, AUTH_ROLES, AUTH_USERS];

pub const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub const TERM: &[u8] = b"term";
/// What etcd leaves out of a state's sum, since members need not agree on it.
pub const NOT_SUMMED: [&[u8]; 3] = [CONSISTENT_INDEX, TERM, b"storageVersion"];
pub const CONF_STATE: &[u8] = b"confState";

const REV_BYTES: usize = 17;
const TOMBSTONE: u8 = b't';

/// `leasepb.Lease`.
#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// What was left at the last checkpoint; 0: all of it.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

/// A revision as a key: two big-endian numbers with a `_` between, and a `t` behind when it deleted.
pub fn rev_key(rev: Rev, tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REV_BYTES + 1);
    key.extend_from_slice(&rev.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&i64::from(rev.sub).to_be_bytes());
    if tombstone {
        key.push(TOMBSTONE);
    }
    key
}

/// The revision of such a key, and whether it deleted.
pub fn read_rev(key: &[u8]) -> Result<(Rev, bool), String> {
    let (rev, mark) = key.split_at_checked(REV_BYTES).unwrap_or((&[], key));
    let number = |part: &[u8]| part.try_into().map(i64::from_be_bytes);
    let (main, sub) = match (rev.get(..8).map(number), rev.get(9..).map(number)) {
        (Some(Ok(main)), Some(Ok(sub))) if rev[8] == b'_' && main > 0 => (main, sub),
        _ => return Err("this is no revision".to_owned()),
    };
    let tombstone = match mark {
        [] => false,
        [TOMBSTONE] => true,
        _ => return Err("this revision is marked as nothing that is known".to_owned()),
    };
    let sub = u32::try_from(sub).map_err(|_| format!("{sub} changes in one transaction"))?;
    Ok((Rev { main, sub }, tombstone))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberJson<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

/// The value of a member's record.
pub fn member_json(member: &Member) -> Vec<u8> {
    let json = MemberJson {
        id: member.id,
        peer_urls: &member.peer_urls,
        is_learner: member.learner,
        name: &member.name,
        client_urls: &member.client_urls,
    };
    serde_json::to_vec(&json).unwrap_or_default()
}

/// The key of a member's record.
pub fn member_key(id: u64) -> Vec<u8> {
    format!("{id:x}").into_bytes()
}

#[derive(Serialize)]
struct ConfStateJson {
    voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    auto_leave: bool,
}

/// `raftpb.ConfState` as etcd saves it.
pub fn conf_state_json(membership: &Membership) -> Vec<u8> {
    let conf = membership.conf_state();
    let json = ConfStateJson {
        voters: conf.voters,
        learners: conf.learners,
        auto_leave: false,
    };
    serde_json::to_vec(&json).unwrap_or_default()
}

/// Where a kept bucket's record is in our own table of meta data.
pub fn kept_key(bucket: &str, key: &[u8]) -> Vec<u8> {
    [b"etcd/", bucket.as_bytes(), b"/", key].concat()
}

/// Where an alarm, the key of a record without a value, is in that table.
pub fn alarm_key(alarm: &[u8]) -> Vec<u8> {
    [b"alarm/", alarm].concat()
}

/// The alarm of such a record.
pub fn read_alarm_key(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"alarm/")
}

/// The bucket and key of such a record.
pub fn read_kept_key(key: &[u8]) -> Option<(&'static str, &[u8])> {
    let rest = key.strip_prefix(b"etcd/")?;
    KEPT.into_iter().find_map(|bucket| {
        let key = rest.strip_prefix(bucket.as_bytes())?.strip_prefix(b"/")?;
        Some((bucket, key))
    })
}
