//! Calls of the API's methods, counted as gRPC's interceptors do it in etcd.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

use super::metrics::code_name;
use crate::measures::Histogram;

/// What etcd has with `--metrics extensive` alone.
const HANDLING: &str = "grpc_server_handling_seconds";
/// Codes that gRPC has.
const CODES: usize = 17;
/// Package, service and methods; a call is found by going through them, which costs less than hashing its name would.
const SERVICES: [(&str, &str, &[&str]); 9] = [
    (
        "etcdserverpb",
        "KV",
        &[
            "Range",
            "Put",
            "Txn",
            "DeleteRange",
            "Compact",
            "RangeStream",
        ],
    ),
    ("etcdserverpb", "Watch", &["Watch"]),
    (
        "etcdserverpb",
        "Lease",
        &[
            "LeaseKeepAlive",
            "LeaseGrant",
            "LeaseRevoke",
            "LeaseTimeToLive",
            "LeaseLeases",
        ],
    ),
    (
        "etcdserverpb",
        "Cluster",
        &[
            "MemberAdd",
            "MemberRemove",
            "MemberUpdate",
            "MemberList",
            "MemberPromote",
        ],
    ),
    (
        "etcdserverpb",
        "Maintenance",
        &[
            "Alarm",
            "Status",
            "Defragment",
            "Hash",
            "HashKV",
            "Snapshot",
            "MoveLeader",
            "Downgrade",
        ],
    ),
    (
        "etcdserverpb",
        "Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("v3lockpb", "Lock", &["Lock", "Unlock"]),
    (
        "v3electionpb",
        "Election",
        &["Campaign", "Proclaim", "Leader", "Observe", "Resign"],
    ),
    ("grpc.health.v1", "Health", &["Check", "List", "Watch"]),
];

#[derive(Debug, Default)]
struct Figures {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES],
    /// How long calls took, where that is measured.
    took: Option<Box<Histogram>>,
}

/// Where a method stands among the services.
pub type Place = (usize, usize);

/// What was called, and what became of it.
#[derive(Debug)]
pub struct Calls(Vec<Vec<Figures>>);

impl Default for Calls {
    fn default() -> Self {
        Self::new(false)
    }
}

fn kind(service: &str, method: &str) -> &'static str {
    match (service, method) {
        ("Watch", _) | (_, "LeaseKeepAlive") => "bidi_stream",
        ("Health", "Watch") | (_, "Snapshot" | "Observe" | "RangeStream") => "server_stream",
        _ => "unary",
    }
}

fn add(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

impl Calls {
    /// `timed`: whether it is measured how long calls take.
    pub fn new(timed: bool) -> Self {
        let figures = |_: &&str| Figures {
            took: timed.then(|| Box::new(Histogram::of_requests())),
            ..Figures::default()
        };
        let of = |methods: &[&str]| methods.iter().map(figures).collect();
        Self(SERVICES.iter().map(|(.., methods)| of(methods)).collect())
    }

    fn place(service: &str, method: &str) -> Option<Place> {
        let at = SERVICES.iter().position(|(_, name, _)| *name == service)?;
        let method = SERVICES[at].2.iter().position(|name| *name == method)?;
        Some((at, method))
    }

    fn at(&self, (service, method): Place) -> Option<&Figures> {
        self.0.get(service)?.get(method)
    }

    fn of(&self, service: &str, method: &str) -> Option<&Figures> {
        self.at(Self::place(service, method)?)
    }

    /// Counts a call that begins, by its path; where the time that it takes is measured, [`Self::took`] wants to know it.
    pub fn start(&self, path: &str) -> Option<Place> {
        let (service, method) = path.get(1..)?.split_once('/')?;
        let service = service.rsplit('.').next().unwrap_or(service);
        let place = Self::place(service, method)?;
        let figures = self.at(place)?;
        add(&figures.started);
        if kind(service, method) != "bidi_stream" {
            add(&figures.received);
        }
        figures.took.as_ref().map(|_| place)
    }

    /// Takes in how long a call took.
    pub fn took(&self, place: Place, time: Duration) {
        let figures = self.at(place);
        if let Some(histogram) = figures.and_then(|figures| figures.took.as_ref()) {
            histogram.observe(time);
        }
    }

    /// Counts a message that came on a stream.
    pub fn receive(&self, service: &str, method: &str) {
        self.of(service, method)
            .iter()
            .for_each(|f| add(&f.received));
    }

    /// Counts a message that went out on a stream.
    pub fn send(&self, service: &str, method: &str) {
        self.of(service, method).iter().for_each(|f| add(&f.sent));
    }

    /// Counts a call that ended.
    pub fn count(&self, service: &'static str, method: &'static str, code: Code) {
        if let Some(figures) = self.of(service, method) {
            if let Some(handled) = figures.handled.get(code as usize) {
                add(handled);
            }
            if code == Code::Ok && kind(service, method) == "unary" {
                add(&figures.sent);
            }
        }
    }

    /// Adds the lines of all methods; of codes, those that there were, and OK.
    pub fn print(&self, text: &mut String) {
        let mut lines: [String; 4] = Default::default();
        let mut times = String::new();
        for ((package, service, methods), figures) in SERVICES.iter().zip(&self.0) {
            for (method, figures) in methods.iter().zip(figures) {
                let kind = kind(service, method);
                let labels = format!(
                    "grpc_method=\"{method}\",grpc_service=\"{package}.{service}\",grpc_type=\"{kind}\""
                );
                if let Some(took) = &figures.took {
                    took.print(&mut times, HANDLING, &format!("{labels},"));
                }
                let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
                for (code, count) in figures.handled.iter().enumerate() {
                    let count = get(count);
                    if count > 0 || code == 0 {
                        let code = code_name(Code::from(i32::try_from(code).unwrap_or(0)));
                        // A String takes all that is written to it.
                        let _ = writeln!(
                            lines[0],
                            "grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}} {count}"
                        );
                    }
                }
                for (line, name, count) in [
                    (1, "started", &figures.started),
                    (2, "msg_received", &figures.received),
                    (3, "msg_sent", &figures.sent),
                ] {
                    let _ = writeln!(
                        lines[line],
                        "grpc_server_{name}_total{{{labels}}} {}",
                        get(count)
                    );
                }
            }
        }
        let names = ["handled", "started", "msg_received", "msg_sent"];
        for (name, lines) in names.iter().zip(lines) {
            let _ = write!(text, "# TYPE grpc_server_{name}_total counter\n{lines}");
        }
        if !times.is_empty() {
            let _ = write!(text, "# TYPE {HANDLING} histogram\n{times}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_where_they_are_asked_for() {
        let mut text = String::new();
        Calls::default().print(&mut text);
        assert!(!text.contains(HANDLING));
        assert_eq!(Calls::default().start("/etcdserverpb.KV/Put"), None);
        let calls = Calls::new(true);
        let place = calls.start("/etcdserverpb.KV/Put").unwrap();
        calls.took(place, Duration::from_millis(7));
        calls.print(&mut text);
        let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for line in [
            format!("{HANDLING}_bucket{{{put},le=\"0.005\"}} 0"),
            format!("{HANDLING}_bucket{{{put},le=\"0.01\"}} 1"),
            format!("{HANDLING}_count{{{put}}} 1"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line}");
        }
    }

    #[test]
    fn calls_are_counted_by_code() {
        let calls = Calls::default();
        for code in [Code::Ok, Code::Ok, Code::OutOfRange] {
            calls.start("/etcdserverpb.KV/Range");
            calls.count("KV", "Range", code);
        }
        calls.start("/etcdserverpb.Watch/Watch");
        calls.start("/etcdserverpb.KV/Nothing");
        calls.start("nothing");
        calls.receive("Watch", "Watch");
        calls.send("Watch", "Watch");
        calls.send("Watch", "Watch");
        let mut text = String::new();
        calls.print(&mut text);
        let range = "grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
        let watch =
            "grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}";
        for line in [
            format!("handled_total{{grpc_code=\"OK\",{range} 2"),
            format!("handled_total{{grpc_code=\"OutOfRange\",{range} 1"),
            format!("started_total{{{range} 3"),
            format!("msg_received_total{{{range} 3"),
            format!("msg_sent_total{{{range} 2"),
            format!("started_total{{{watch} 1"),
            format!("handled_total{{grpc_code=\"OK\",{watch} 0"),
            format!("msg_received_total{{{watch} 1"),
            format!("msg_sent_total{{{watch} 2"),
        ] {
            assert!(text.contains(&format!("\ngrpc_server_{line}\n")), "{line}");
        }
    }
}
