//! Figures in Prometheus' text format, under etcd's names: those that its dashboard and alerts ask for, and what else there
//! is at no cost.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Code;

use super::calls::Calls;
use super::{process, SERVER_VERSION};
use crate::alarm;
use crate::downgrade::Downgrade;
use crate::measures::work;
use crate::measures::{
    self, Applies, Ranges, Requests, BACKEND_COMMIT, CLIENT_RECEIVED, CLIENT_SENT, WAL_FSYNC,
};
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
    pub slow_watchers: u64,
    pub pending_events: u64,
    pub ranges: u64,
    pub puts: u64,
    pub deletes: u64,
    pub txns: u64,
    pub term: u64,
    pub revision: i64,
    pub compacted: i64,
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

/// One of the figures of another member.
type Figure = fn(&measures::PeerMeasures) -> u64;

/// Text that grows by a metric at a time; a String takes all that is written to it.
struct Text(String);

impl Text {
    fn head(&mut self, kind: &str, name: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    fn line(&mut self, kind: &str, name: &str, value: u64) {
        self.head(kind, name);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }
}

/// Prometheus text with etcd's names.
pub fn print(figures: &Figures, calls: &Calls) -> String {
    let mut text = Text(String::new());
    member(&mut text, figures);
    state(&mut text, figures);
    happened(&mut text);
    disks(&mut text);
    network(&mut text);
    for (name, kind, value) in process::lines() {
        text.head(kind, name);
        let _ = writeln!(text.0, "{name} {value}");
    }
    calls.print(&mut text.0);
    text.0
}

fn member(text: &mut Text, figures: &Figures) {
    for (kind, name, value) in [
        ("gauge", "has_leader", figures.has_leader.into()),
        ("gauge", "is_leader", figures.is_leader.into()),
        ("gauge", "is_learner", figures.is_learner.into()),
        (
            "counter",
            "leader_changes_seen_total",
            figures.leader_changes,
        ),
        (
            "gauge",
            "proposals_committed_total",
            figures.proposals_committed,
        ),
        (
            "gauge",
            "proposals_applied_total",
            figures.proposals_applied,
        ),
        ("gauge", "proposals_pending", figures.proposals_pending),
        (
            "counter",
            "proposals_failed_total",
            figures.proposals_failed,
        ),
        ("gauge", "quota_backend_bytes", figures.quota_bytes),
    ] {
        text.line(kind, &format!("etcd_server_{name}"), value);
    }
    let cluster = figures.downgrade.cluster().version();
    for (name, labels) in [
        (
            "etcd_server_id",
            format!("server_id=\"{:x}\"", figures.member_id),
        ),
        (
            "etcd_server_version",
            format!("server_version=\"{SERVER_VERSION}\""),
        ),
        (
            "etcd_cluster_version",
            format!("cluster_version=\"{cluster}\""),
        ),
    ] {
        text.head("gauge", name);
        text.labelled(name, &labels, 1);
    }
    let name = "etcd_debugging_server_alarms";
    text.head("gauge", name);
    for one in &figures.alarms {
        let (kind, id) = (alarm::name(one), one.member_id);
        let labels = format!("alarm_type=\"{kind}\",server_id=\"{id:x}\"");
        text.labelled(name, &labels, 1);
    }
}

fn state(text: &mut Text, figures: &Figures) {
    let revision = |revision: i64| u64::try_from(revision).unwrap_or(0);
    for (kind, name, value) in [
        ("gauge", "mvcc_db_total_size_in_bytes", figures.db_bytes),
        (
            "gauge",
            "mvcc_db_total_size_in_use_in_bytes",
            figures.db_used_bytes,
        ),
        ("counter", "mvcc_range_total", figures.ranges),
        ("counter", "mvcc_put_total", figures.puts),
        ("counter", "mvcc_delete_total", figures.deletes),
        ("counter", "mvcc_txn_total", figures.txns),
        ("gauge", "debugging_mvcc_keys_total", figures.keys),
        ("gauge", "debugging_mvcc_watcher_total", figures.watchers),
        (
            "gauge",
            "debugging_mvcc_watch_stream_total",
            figures.watch_streams,
        ),
        (
            "gauge",
            "debugging_mvcc_slow_watcher_total",
            figures.slow_watchers,
        ),
        (
            "gauge",
            "debugging_mvcc_pending_events_total",
            figures.pending_events,
        ),
        (
            "gauge",
            "debugging_mvcc_current_revision",
            revision(figures.revision),
        ),
        (
            "gauge",
            "debugging_mvcc_compact_revision",
            revision(figures.compacted),
        ),
    ] {
        text.line(kind, &format!("etcd_{name}"), value);
    }
}

/// What is counted where it happens.
fn happened(text: &mut Text) {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    for (name, value) in [
        ("server_slow_apply_total", Applies::slow()),
        ("server_slow_read_indexes_total", get(&measures::READS_SLOW)),
        (
            "server_read_indexes_failed_total",
            get(&measures::READS_FAILED),
        ),
        (
            "debugging_server_lease_expired_total",
            get(&measures::LEASES_EXPIRED),
        ),
        (
            "debugging_lease_granted_total",
            get(&measures::LEASES_GRANTED),
        ),
        (
            "debugging_lease_revoked_total",
            get(&measures::LEASES_REVOKED),
        ),
        (
            "debugging_lease_renewed_total",
            get(&measures::LEASES_RENEWED),
        ),
        ("debugging_mvcc_events_total", get(&measures::EVENTS)),
    ] {
        text.line("counter", &format!("etcd_{name}"), value);
    }
    let name = "etcd_debugging_lease_ttl_total";
    text.head("histogram", name);
    measures::LEASE_TTL.print(&mut text.0, name, "");
    let name = "etcd_server_apply_duration_seconds";
    text.head("histogram", name);
    Applies::print(&mut text.0, name);
    let name = "etcd_server_request_duration_seconds";
    text.head("histogram", name);
    Requests::print(&mut text.0, name);
    let name = "etcd_server_range_duration_seconds";
    text.head("histogram", name);
    Ranges::print(&mut text.0, name);
}

fn disks(text: &mut Text) {
    for (name, histogram) in [
        ("etcd_disk_wal_fsync_duration_seconds", &WAL_FSYNC),
        ("etcd_disk_backend_commit_duration_seconds", &BACKEND_COMMIT),
        (
            "etcd_disk_backend_snapshot_duration_seconds",
            &work::SNAPSHOT,
        ),
        (
            "etcd_disk_backend_defrag_duration_seconds",
            &work::DEFRAGMENTATION,
        ),
        (
            "etcd_snap_db_save_total_duration_seconds",
            &work::SNAPSHOT_SAVE,
        ),
        ("etcd_mvcc_hash_duration_seconds", &work::HASH),
        ("etcd_mvcc_hash_rev_duration_seconds", &work::HASH_REV),
        (
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            &work::COMPACTION_PAUSE,
        ),
        (
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            &work::COMPACTION_TOTAL,
        ),
    ] {
        text.head("histogram", name);
        histogram.print(&mut text.0, name, "");
    }
    for (kind, name, value) in [
        ("gauge", "etcd_disk_defrag_inflight", &work::DEFRAGMENTING),
        (
            "gauge",
            "etcd_debugging_mvcc_db_compaction_last",
            &work::COMPACTED_AT,
        ),
        (
            "counter",
            "etcd_debugging_mvcc_db_compaction_keys_total",
            &work::COMPACTED_KEYS,
        ),
    ] {
        text.line(kind, name, value.load(Ordering::Relaxed));
    }
}

fn network(text: &mut Text) {
    for (way, bytes) in [("received", &CLIENT_RECEIVED), ("sent", &CLIENT_SENT)] {
        let name = format!("etcd_network_client_grpc_{way}_bytes_total");
        text.line("counter", &name, bytes.load(Ordering::Relaxed));
    }
    let peers = measures::peers();
    let counters: [(&str, &str, Figure); 3] = [
        ("sent_bytes", "To", |p| p.sent_bytes.load(Ordering::Relaxed)),
        ("received_bytes", "From", |p| {
            p.received_bytes.load(Ordering::Relaxed)
        }),
        ("sent_failures", "To", |p| {
            p.sent_failures.load(Ordering::Relaxed)
        }),
    ];
    for (name, label, get) in counters {
        let name = format!("etcd_network_peer_{name}_total");
        text.head("counter", &name);
        for (id, peer) in &peers {
            text.labelled(&name, &format!("{label}=\"{id:x}\""), get(peer));
        }
    }
    let name = "etcd_network_peer_round_trip_time_seconds";
    text.head("histogram", name);
    for (id, peer) in &peers {
        peer.round_trip
            .print(&mut text.0, name, &format!("To=\"{id:x}\","));
    }
}
