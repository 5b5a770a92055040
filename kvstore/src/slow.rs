//! Requests that took long: from which time on that is told, and how, in etcd's words and under its names.
//!
//! Its part: the `text` of requests. Not here: how often a line is written (`report::Pace`), and figures (`measures`).

mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use serde::Deserialize;
use tonic::Status;
use tracing::warn;

use crate::apply::Response;
use crate::command::{Command, Proposal};
use crate::errors::StoreError;
use crate::measures::{Applies, Requests};
use crate::pb::etcd::response_op::Response as OpResponse;
use crate::pb::etcd::{RangeRequest, TxnRequest, TxnResponse};
use crate::report::{self, Pace};

const APPLY_MS: u64 = 100;
const UNARY_MS: u64 = 300;

/// Etcd's `--warning-apply-duration` and `--warning-unary-request-duration`, in milliseconds; 0 stands for its defaults.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub apply: u64,
    pub unary: u64,
}

/// One of each in a process, as of what it measures.
static APPLY_LIMIT: AtomicU64 = AtomicU64::new(APPLY_MS);
static UNARY_LIMIT: AtomicU64 = AtomicU64::new(UNARY_MS);
static APPLIES: Pace = Pace::new();
static UNARIES: Pace = Pace::new();

impl Settings {
    /// Has them hold from now on.
    pub fn hold(self) {
        let or = |given, usual| if given == 0 { usual } else { given };
        APPLY_LIMIT.store(or(self.apply, APPLY_MS), Ordering::Relaxed);
        UNARY_LIMIT.store(or(self.unary, UNARY_MS), Ordering::Relaxed);
    }
}

fn limit(of: &AtomicU64) -> Duration {
    Duration::from_millis(of.load(Ordering::Relaxed))
}

/// Whether a change of the state that took so long to apply is told.
pub fn is_slow(took: Duration) -> bool {
    took > limit(&APPLY_LIMIT)
}

/// Tells of a change of the state that was slow to apply.
pub fn applied(took: Duration, proposal: &Proposal, result: &Result<Response, StoreError>) {
    Applies::note_slow();
    let told = || {
        let size = result.as_ref().ok().and_then(size_of);
        let response = size.map_or_else(String::new, |size| format!("size:{size}"));
        (text::proposal(proposal), response)
    };
    let error = result.as_ref().err().map(ToString::to_string);
    tell_applied(took, "", told, error.as_deref());
}

fn tell_applied(
    took: Duration,
    prefix: &str,
    told: impl FnOnce() -> (String, String),
    error: Option<&str>,
) {
    let Some(left_out) = APPLIES.turn() else {
        return;
    };
    let (request, response) = told();
    let expected = limit(&APPLY_LIMIT);
    warn!(
        took = format!("{took:?}"),
        expected_duration = format!("{expected:?}"),
        prefix,
        request,
        response,
        error,
        left_out = (left_out > 0).then_some(left_out),
        "apply request took too long"
    );
}

fn size_of(response: &Response) -> Option<usize> {
    match response {
        Response::Put(one) => Some(one.encoded_len()),
        Response::DeleteRange(one) => Some(one.encoded_len()),
        Response::Txn(one) => Some(one.encoded_len()),
        Response::Compact(one) => Some(one.encoded_len()),
        Response::LeaseGrant(one) => Some(one.encoded_len()),
        Response::LeaseRevoke(one) => Some(one.encoded_len()),
        _ => None,
    }
}

/// A moment by a clock that is next to free to look at, and moves every few milliseconds.
#[derive(Debug, Clone, Copy)]
struct Coarse(Duration);

impl Coarse {
    fn now() -> Self {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: it writes to `time` alone; the clock is there since Linux 2.6.32.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(
            seconds,
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub struct Underway {
    kind: &'static str,
    since: Coarse,
    timed: Option<Instant>,
}

/// What is told of a request besides its text.
struct Stats {
    method: &'static str,
    /// Operations and bytes, as etcd counts them: of the request and of the response; -1 where it does not.
    request: (i64, i64),
    response: (i64, i64),
}

fn whole(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// What a range found: keys in the answer, and its bytes; how many keys there are.
#[derive(Debug, Clone, Copy)]
pub struct Ranged {
    pub kvs: usize,
    pub bytes: usize,
    pub count: i64,
}

/// What is kept of a command that goes on its way: little, and cheap to keep.
#[derive(Debug)]
pub enum Sketch {
    /// A put or a deletion, whose bytes are shared; of a put the value is kept too, though not shown.
    Whole(Command),
    Txn {
        bytes: usize,
    },
    Other,
}

impl Sketch {
    /// `bytes` is the length of the request.
    #[must_use]
    pub fn of(command: &Command, bytes: usize) -> Self {
        match command {
            Command::Put(_) | Command::DeleteRange(_) => Self::Whole(command.clone()),
            Command::Txn(_) => Self::Txn { bytes },
            _ => Self::Other,
        }
    }
}

impl Underway {
    /// Begins a request of a kind that etcd's figures know.
    #[must_use]
    pub fn begin(kind: &'static str) -> Self {
        Self {
            kind,
            since: Coarse::now(),
            timed: Requests::begin(kind),
        }
    }

    /// Takes in how long it took; that again when it was long.
    fn end(self, taken: bool) -> Option<Duration> {
        Requests::end(self.kind, self.timed, taken);
        let took = self.since.elapsed();
        let least = limit(&APPLY_LIMIT).min(limit(&UNARY_LIMIT));
        (took > least).then_some(took)
    }

    /// A range came to its end.
    pub fn ranged(self, request: &RangeRequest, answer: Result<impl FnOnce() -> Ranged, &Status>) {
        let Some(took) = self.end(answer.is_ok()) else {
            return;
        };
        let (found, error) = match answer {
            Ok(found) => (Some(found()), None),
            Err(status) => (None, Some(status.message())),
        };
        if is_slow(took) {
            Applies::note_slow();
            let told = || {
                let said = |found: &Ranged| {
                    format!("range_response_count:{} size:{}", found.kvs, found.bytes)
                };
                let said = found.as_ref().map(said);
                (text::range(request), said.unwrap_or_default())
            };
            tell_applied(took, "read-only range ", told, error);
        }
        let response = found.map_or((0, 0), |found| (found.count, whole(found.bytes)));
        let stats = Stats {
            method: "/etcdserverpb.KV/Range",
            request: (0, whole(request.encoded_len())),
            response,
        };
        tell_unary(took, &stats, || text::range(request));
    }

    /// A transaction that only reads came to its end.
    pub fn read(self, request: &TxnRequest, answer: Result<&TxnResponse, &Status>) {
        let Some(took) = self.end(answer.is_ok()) else {
            return;
        };
        let size = answer.map_or(0, Message::encoded_len);
        if is_slow(took) {
            Applies::note_slow();
            let told = || {
                let said =
                    answer.map(|answer| format!("responses:<{}> size:{size}", counts(answer)));
                (text::txn(request), said.unwrap_or_default())
            };
            let error = answer.err().map(Status::message);
            tell_applied(took, "read-only txn ", told, error);
        }
        let stats = Stats {
            method: "/etcdserverpb.KV/Txn",
            request: (whole(request.success.len()), whole(request.encoded_len())),
            response: (0, whole(size)),
        };
        tell_unary(took, &stats, || text::txn(request));
    }

    /// What became of a command is known.
    pub fn agreed(self, sketch: &Sketch, answer: Result<&Response, &Status>) {
        let Some(took) = self.end(answer.is_ok()) else {
            return;
        };
        let size = whole(answer.ok().and_then(size_of).unwrap_or(0));
        let (method, request, count, content) = match sketch {
            Sketch::Whole(Command::Put(request)) => (
                "/etcdserverpb.KV/Put",
                (1, whole(request.encoded_len())),
                0,
                text::put(request),
            ),
            Sketch::Whole(Command::DeleteRange(request)) => {
                let deleted = match answer {
                    Ok(Response::DeleteRange(response)) => response.deleted,
                    _ => 0,
                };
                let bytes = whole(request.encoded_len());
                let content = text::delete(request);
                ("/etcdserverpb.KV/DeleteRange", (0, bytes), deleted, content)
            }
            Sketch::Txn { bytes } => {
                let bytes = whole(*bytes);
                ("/etcdserverpb.KV/Txn", (-1, bytes), 0, String::new())
            }
            _ => (self.kind, (-1, -1), -1, String::new()),
        };
        let response = if count < 0 { (-1, -1) } else { (count, size) };
        let stats = Stats {
            method,
            request,
            response,
        };
        tell_unary(took, &stats, || content);
    }
}

/// How many keys each range of a transaction found.
fn counts(answer: &TxnResponse) -> String {
    let ranges = answer
        .responses
        .iter()
        .filter_map(|one| match &one.response {
            Some(OpResponse::ResponseRange(range)) => Some(range.kvs.len()),
            _ => None,
        });
    let counts: Vec<_> = ranges
        .map(|kvs| format!("range_response_count:{kvs}"))
        .collect();
    counts.join(" ")
}

fn tell_unary(took: Duration, stats: &Stats, content: impl FnOnce() -> String) {
    if took <= limit(&UNARY_LIMIT) {
        return;
    }
    let Some(left_out) = UNARIES.turn() else {
        return;
    };
    warn!(
        "start time" = report::ago(took),
        "time spent" = format!("{took:?}"),
        "response type" = stats.method,
        "request count" = stats.request.0,
        "request size" = stats.request.1,
        "response count" = stats.response.0,
        "response size" = stats.response.1,
        "request content" = content(),
        left_out = (left_out > 0).then_some(left_out),
        "request stats"
    );
}
