//! Figures in Prometheus' text format, under etcd's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use tonic::Code;

use super::SERVER_VERSION;
use crate::alarm;
use crate::downgrade::Downgrade;
use crate::pb::etcd::AlarmMember;

/// Figures that `/metrics` prints.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub member_id: u64,
    pub leader: u64,
    pub has_leader: bool,
    pub is_leader: bool,
    pub is_learner: bool,
    pub leader_changes: u64,
    pub proposals_committed: u64,
    pub proposals_applied: u64,
    pub proposals_pending: u64,
    pub proposals_failed: u64,
    pub db_bytes: u64,
    pub db_used_bytes: u64,
    pub quota_bytes: u64,
    pub no_space: bool,
    pub alarms: Vec<AlarmMember>,
    pub downgrade: Downgrade,
    pub keys: u64,
    pub watchers: u64,
    pub watch_streams: u64,
    pub ranges: u64,
    pub puts: u64,
    pub deletes: u64,
    pub txns: u64,
    pub term: u64,
    pub revision: i64,
}

/// Finished calls by service, method and code.
#[derive(Debug, Default)]
pub struct Calls {
    handled: Mutex<BTreeMap<(&'static str, &'static str, i32), u64>>,
}

impl Calls {
    pub fn count(&self, service: &'static str, method: &'static str, code: Code) {
        if let Ok(mut handled) = self.handled.lock() {
            *handled.entry((service, method, code as i32)).or_default() += 1;
        }
    }

    fn print(&self, text: &mut String) {
        let Ok(handled) = self.handled.lock() else {
            return;
        };
        text.push_str("# TYPE grpc_server_handled_total counter\n");
        for ((service, method, code), count) in handled.iter() {
            let kind = match *method {
                "Watch" | "LeaseKeepAlive" => "bidi_stream",
                "Observe" | "Snapshot" => "server_stream",
                _ => "unary",
            };
            let code = code_name(Code::from(*code));
            let package = match *service {
                "Lock" => "v3lockpb",
                "Election" => "v3electionpb",
                _ => "etcdserverpb",
            };
            let _ = writeln!(
                text,
                "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",\
                 grpc_service=\"{package}.{service}\",grpc_type=\"{kind}\"}} {count}"
            );
        }
    }
}

/// A code as grpc-go names it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Prometheus text with etcd's names.
pub fn print(figures: &Figures, calls: &Calls) -> String {
    let mut text = String::new();
    let mut line = |kind: &str, name: &str, value: u64| {
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    };
    line("gauge", "etcd_server_has_leader", figures.has_leader.into());
    line("gauge", "etcd_server_is_leader", figures.is_leader.into());
    line("gauge", "etcd_server_is_learner", figures.is_learner.into());
    line(
        "counter",
        "etcd_server_leader_changes_seen_total",
        figures.leader_changes,
    );
    line(
        "gauge",
        "etcd_server_proposals_committed_total",
        figures.proposals_committed,
    );
    line(
        "gauge",
        "etcd_server_proposals_applied_total",
        figures.proposals_applied,
    );
    line(
        "gauge",
        "etcd_server_proposals_pending",
        figures.proposals_pending,
    );
    line(
        "counter",
        "etcd_server_proposals_failed_total",
        figures.proposals_failed,
    );
    line(
        "gauge",
        "etcd_mvcc_db_total_size_in_bytes",
        figures.db_bytes,
    );
    line(
        "gauge",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        figures.db_used_bytes,
    );
    line(
        "gauge",
        "etcd_server_quota_backend_bytes",
        figures.quota_bytes,
    );
    line("gauge", "etcd_debugging_mvcc_keys_total", figures.keys);
    line(
        "gauge",
        "etcd_debugging_mvcc_watcher_total",
        figures.watchers,
    );
    line(
        "gauge",
        "etcd_debugging_mvcc_watch_stream_total",
        figures.watch_streams,
    );
    line(
        "gauge",
        "etcd_debugging_mvcc_current_revision",
        figures.revision.try_into().unwrap_or(0),
    );
    line("counter", "etcd_mvcc_range_total", figures.ranges);
    line("counter", "etcd_mvcc_put_total", figures.puts);
    line("counter", "etcd_mvcc_delete_total", figures.deletes);
    line("counter", "etcd_mvcc_txn_total", figures.txns);
    let _ = writeln!(
        text,
        "# TYPE etcd_server_id gauge\netcd_server_id{{server_id=\"{:x}\"}} 1",
        figures.member_id
    );
    let _ = writeln!(
        text,
        "# TYPE etcd_server_version gauge\netcd_server_version{{server_version=\"{SERVER_VERSION}\"}} 1"
    );
    text.push_str("# TYPE etcd_debugging_server_alarms gauge\n");
    for one in &figures.alarms {
        let (kind, id) = (alarm::name(one), one.member_id);
        let _ = writeln!(
            text,
            "etcd_debugging_server_alarms{{alarm_type=\"{kind}\",server_id=\"{id:x}\"}} 1"
        );
    }
    calls.print(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_code() {
        let calls = Calls::default();
        calls.count("KV", "Range", Code::Ok);
        calls.count("KV", "Range", Code::Ok);
        calls.count("KV", "Range", Code::OutOfRange);
        let text = print(&Figures::default(), &calls);
        let label = "grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
        assert!(text.contains(&format!("{{grpc_code=\"OK\",{label} 2")));
        assert!(text.contains(&format!("{{grpc_code=\"OutOfRange\",{label} 1")));
    }
}
