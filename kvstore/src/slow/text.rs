//! Requests as etcd writes them into its log: keys as they are, of values only the sizes. What is long is cut.

use crate::command::{Command, Proposal};
use crate::pb::etcd::compare::TargetUnion;
use crate::pb::etcd::request_op::Request;
use crate::pb::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Bytes of a key that are shown.
const KEY_BYTES: usize = 128;
/// Compares and operations of a transaction, nested ones too.
const MOST_PARTS: usize = 24;
/// Bytes of the whole.
const MOST_BYTES: usize = 2048;
const CUT: &str = "...";

/// What is left to be shown of one request.
struct Parts(usize);

fn flag(name: &str, set: bool) -> Option<String> {
    set.then(|| format!("{name}:true"))
}

fn number(name: &str, value: i64) -> Option<String> {
    (value != 0).then(|| format!("{name}:{value}"))
}

/// As Go's protobuf texts have bytes.
fn bytes(name: &str, value: &[u8]) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    let mut text = format!("{name}:\"");
    for byte in value.iter().take(KEY_BYTES) {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text.push('"');
    if value.len() > KEY_BYTES {
        text.push_str(CUT);
    }
    Some(text)
}

fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(" ")
}

/// A redacted message's fields each have a space behind them.
fn spaced<const N: usize>(parts: [Option<String>; N]) -> String {
    let parts = parts.into_iter().flatten();
    parts.map(|part| part + " ").collect()
}

fn size(value: &[u8]) -> Option<String> {
    number("value_size", i64::try_from(value.len()).unwrap_or(i64::MAX))
}

pub(super) fn put(request: &PutRequest) -> String {
    spaced([
        bytes("key", &request.key),
        size(&request.value),
        number("lease", request.lease),
        flag("prev_kv", request.prev_kv),
        flag("ignore_value", request.ignore_value),
        flag("ignore_lease", request.ignore_lease),
    ])
}

pub(super) fn range(request: &RangeRequest) -> String {
    let order = request.sort_order().as_str_name();
    let target = request.sort_target().as_str_name();
    joined([
        bytes("key", &request.key),
        bytes("range_end", &request.range_end),
        number("limit", request.limit),
        number("revision", request.revision),
        (request.sort_order != 0).then(|| format!("sort_order:{order}")),
        (request.sort_target != 0).then(|| format!("sort_target:{target}")),
        flag("serializable", request.serializable),
        flag("keys_only", request.keys_only),
        flag("count_only", request.count_only),
        number("min_mod_revision", request.min_mod_revision),
        number("max_mod_revision", request.max_mod_revision),
        number("min_create_revision", request.min_create_revision),
        number("max_create_revision", request.max_create_revision),
    ])
}

pub(super) fn delete(request: &DeleteRangeRequest) -> String {
    joined([
        bytes("key", &request.key),
        bytes("range_end", &request.range_end),
        flag("prev_kv", request.prev_kv),
    ])
}

fn compare(compare: &Compare) -> String {
    let result = compare.result().as_str_name();
    let target = compare.target().as_str_name();
    let (value, redacted) = match &compare.target_union {
        Some(TargetUnion::Value(value)) => (size(value), true),
        Some(TargetUnion::Version(n)) => (number("version", *n), false),
        Some(TargetUnion::CreateRevision(n)) => (number("create_revision", *n), false),
        Some(TargetUnion::ModRevision(n)) => (number("mod_revision", *n), false),
        Some(TargetUnion::Lease(n)) => (number("lease", *n), false),
        None => (None, false),
    };
    let parts = [
        (compare.result != 0).then(|| format!("result:{result}")),
        (compare.target != 0).then(|| format!("target:{target}")),
        bytes("key", &compare.key),
        value,
        bytes("range_end", &compare.range_end),
    ];
    if redacted {
        spaced(parts)
    } else {
        joined(parts)
    }
}

impl Parts {
    /// The first ones, while there is room for them.
    fn each<T>(&mut self, all: &[T], mut show: impl FnMut(&mut Self, &T) -> String) -> String {
        let mut shown = Vec::new();
        for one in all {
            if self.0 == 0 {
                shown.push(CUT.to_owned());
                break;
            }
            self.0 -= 1;
            shown.push(show(self, one));
        }
        shown.join(" ")
    }

    fn operation(&mut self, op: &RequestOp) -> String {
        match &op.request {
            Some(Request::RequestPut(one)) => format!("request_put:<{}>", put(one)),
            Some(Request::RequestRange(one)) => format!("request_range:{{{}}}", range(one)),
            Some(Request::RequestDeleteRange(one)) => {
                format!("request_delete_range:{{{}}}", delete(one))
            }
            Some(Request::RequestTxn(one)) => format!("request_txn:<{}>", self.txn(one)),
            None => String::new(),
        }
    }

    fn txn(&mut self, request: &TxnRequest) -> String {
        let compares = self.each(&request.compare, |_, one| compare(one));
        let success = self.each(&request.success, Self::operation);
        let failure = self.each(&request.failure, Self::operation);
        format!("compare:<{compares}> success:<{success}> failure:<{failure}>")
    }
}

pub(super) fn txn(request: &TxnRequest) -> String {
    cut(Parts(MOST_PARTS).txn(request))
}

fn command(command: &Command) -> String {
    match command {
        Command::Put(request) => format!("put:<{}>", put(request)),
        Command::DeleteRange(request) => format!("delete_range:{{{}}}", delete(request)),
        Command::Txn(request) => format!("txn:<{}>", txn(request)),
        Command::Compact(revision) => format!("compaction:{{revision:{revision}}}"),
        Command::LeaseGrant(request) => {
            let (ttl, id) = (request.ttl, request.id);
            format!("lease_grant:<ttl:{ttl}-second id:{id:016x}>")
        }
        Command::LeaseRevoke(id) => format!("lease_revoke:<id:{id:016x}>"),
        // There is nothing to find out by the rest, and in users' requests much to hide.
        other => format!("{}:{{}}", other.kind()),
    }
}

pub(super) fn proposal(proposal: &Proposal) -> String {
    let user = proposal.caller.as_ref().map(|caller| &caller.user);
    let header = spaced([
        Some(format!("ID:{}", proposal.request_id)),
        user.and_then(|name| bytes("username", name.as_bytes())),
    ]);
    let command = proposal.command.as_ref().map(command).unwrap_or_default();
    cut(format!("header:<{header}> {command}"))
}

fn cut(mut text: String) -> String {
    if text.len() > MOST_BYTES {
        // All of it is ASCII.
        text.truncate(MOST_BYTES);
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_etcds_and_hold_no_value() {
        let written = PutRequest {
            key: "foo\0\"".into(),
            value: "secret".into(),
            lease: 7,
            ..Default::default()
        };
        assert_eq!(put(&written), r#"key:"foo\000\"" value_size:6 lease:7 "#);
        let read = RangeRequest {
            key: "a".into(),
            range_end: "z".into(),
            keys_only: true,
            sort_order: 2,
            ..Default::default()
        };
        let shown = r#"key:"a" range_end:"z" sort_order:DESCEND keys_only:true"#;
        assert_eq!(range(&read), shown);
        let request = TxnRequest {
            compare: vec![Compare {
                target: 3,
                key: "k".into(),
                target_union: Some(TargetUnion::Value("secret".into())),
                ..Default::default()
            }],
            success: vec![RequestOp {
                request: Some(Request::RequestPut(written)),
            }],
            failure: vec![RequestOp {
                request: Some(Request::RequestRange(RangeRequest {
                    key: "b".into(),
                    ..Default::default()
                })),
            }],
        };
        let whole = Proposal {
            request_id: 5,
            command: Some(Command::Txn(request)),
            ..Default::default()
        };
        assert_eq!(
            proposal(&whole),
            "header:<ID:5 > txn:<compare:<target:VALUE key:\"k\" value_size:6 > \
             success:<request_put:<key:\"foo\\000\\\"\" value_size:6 lease:7 >> \
             failure:<request_range:{key:\"b\"}>>"
        );
    }

    #[test]
    fn however_large_a_request_is_its_text_is_not() {
        let leaf = RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: vec![0; 1 << 20].into(),
                ..Default::default()
            })),
        };
        let mut request = TxnRequest::default();
        for _ in 0..8 {
            let inner = RequestOp {
                request: Some(Request::RequestTxn(request)),
            };
            request = TxnRequest {
                success: vec![inner.clone(), inner, leaf.clone()],
                ..Default::default()
            };
        }
        let text = txn(&request);
        assert!(text.len() <= MOST_BYTES + CUT.len() && text.ends_with(CUT));
    }
}
