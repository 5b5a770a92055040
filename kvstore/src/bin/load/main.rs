//! kvload: loads any etcd v3 store and says how it did. `kvload put|get|txn|watch|fill [flags]`; each client is one loop
//! of call and answer, the clients share `--connections` connections. It measures; it retries nothing.
//!
//! `watch` puts while watchers look on, and tells how long events took from the put's call to a watcher. `fill` puts each
//! key of the key space once, in transactions of `--batch` puts.

mod delivery;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvstore::client::pool::{channel, secure};
use kvstore::pb::etcd;
use kvstore::tls::Identity;
use prost::Message;
use tokio::task::JoinSet;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::Request;

use crate::delivery::Delivery;

/// Prime, so that its multiples reach every key of a smaller key space once.
const SPREAD: u128 = 2_654_435_761;
const USAGE: &str = "usage: kvload put|get|txn|watch|fill [flags]
  --endpoints A,B       (127.0.0.1:2379)   --clients N      (1)     --connections N  (1)
  --total N             (10000)            --duration SEC   instead of --total
  --key-size N          (16)               --val-size N     (64)    --key-space N    (10000)
  --serializable        gets only          --watchers N     (100)   --json
  --rate N              calls a second, of all clients together     --prefix P  before each key
  --batch N             (8) puts of one transaction of fill
  $KVLOAD_TOKEN         a token that each call carries
  --cacert FILE         --cert FILE        --key FILE       --insecure-skip-tls-verify";

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Load {
    verb: String,
    endpoints: Vec<String>,
    clients: usize,
    connections: usize,
    total: u64,
    duration: Option<Duration>,
    key_size: usize,
    val_size: usize,
    key_space: u64,
    batch: u64,
    serializable: bool,
    watchers: usize,
    rate: Option<f64>,
    prefix: String,
    json: bool,
    identity: Identity,
    token: Option<MetadataValue<Ascii>>,
}

impl Load {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let verb = words.next().unwrap_or_default();
        if !["put", "get", "txn", "watch", "fill"].contains(&verb.as_str()) {
            return Err(USAGE.into());
        }
        let mut load = Self {
            verb,
            endpoints: vec!["127.0.0.1:2379".into()],
            clients: 1,
            connections: 1,
            total: 10_000,
            duration: None,
            key_size: 16,
            val_size: 64,
            key_space: 10_000,
            batch: 8,
            serializable: false,
            watchers: 100,
            rate: None,
            prefix: String::new(),
            json: false,
            identity: Identity::default(),
            token: match std::env::var("KVLOAD_TOKEN") {
                Ok(token) => Some(token.parse()?),
                Err(_) => None,
            },
        };
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_string(), Some(value.to_string())),
                None => (word, None),
            };
            match flag.as_str() {
                "--serializable" => load.serializable = true,
                "--json" => load.json = true,
                "--insecure-skip-tls-verify" => load.identity.insecure_skip_verify = true,
                _ => {
                    let value = inline
                        .or_else(|| words.next())
                        .ok_or_else(|| format!("{flag} needs a value"))?;
                    load.set(&flag, &value)
                        .map_err(|error| format!("{flag} {value}: {error}"))?;
                }
            }
        }
        if load.clients == 0
            || load.connections == 0
            || load.key_space == 0
            || load.batch == 0
            || load.endpoints.is_empty()
        {
            return Err(
                "clients, connections, key space, batch and endpoints: at least one of each".into(),
            );
        }
        if load.verb == "fill" {
            (load.total, load.duration) = (load.key_space.div_ceil(load.batch), None);
        }
        Ok(load)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), Failure> {
        match flag {
            "--endpoints" => self.endpoints = value.split(',').map(String::from).collect(),
            "--clients" => self.clients = value.parse()?,
            "--connections" => self.connections = value.parse()?,
            "--total" => self.total = value.parse()?,
            "--duration" => self.duration = Some(Duration::try_from_secs_f64(value.parse()?)?),
            "--key-size" => self.key_size = value.parse()?,
            "--val-size" => self.val_size = value.parse()?,
            "--key-space" => self.key_space = value.parse()?,
            "--cacert" => self.identity.cacert = Some(value.into()),
            "--cert" => self.identity.cert = Some(value.into()),
            "--key" => self.identity.key = Some(value.into()),
            "--batch" => self.batch = value.parse()?,
            "--watchers" => self.watchers = value.parse()?,
            "--rate" => self.rate = Some(value.parse()?).filter(|rate| *rate > 0.0),
            "--prefix" => self.prefix = value.into(),
            _ => return Err(USAGE.into()),
        }
        Ok(())
    }

    fn key(&self, number: u64) -> Bytes {
        // Spread over the key space, the same in every run: as many calls as there are keys reach each key once.
        let spread = u128::from(number) * SPREAD % u128::from(self.key_space);
        let digits = self.key_size.saturating_sub(self.prefix.len());
        Bytes::from(format!("{}{spread:0digits$}", self.prefix))
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// When the call of this number is due, counted from the first one.
    fn due(&self, number: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(number as f64 / rate)
        })
    }

    async fn once(
        &self,
        channel: &Channel,
        number: u64,
        value: &Bytes,
    ) -> Result<(), tonic::Status> {
        let mut kv = etcd::kv_client::KvClient::new(channel.clone());
        let key = self.key(number);
        match self.verb.as_str() {
            "get" => {
                let serializable = self.serializable;
                let request = etcd::RangeRequest {
                    key,
                    serializable,
                    ..Default::default()
                };
                kv.range(self.signed(request)).await.map(drop)
            }
            "txn" => {
                let compare = etcd::Compare {
                    result: etcd::compare::CompareResult::Greater.into(),
                    target: etcd::compare::CompareTarget::Version.into(),
                    key: key.clone(),
                    target_union: Some(etcd::compare::TargetUnion::Version(-1)),
                    ..Default::default()
                };
                let request = etcd::TxnRequest {
                    compare: vec![compare],
                    success: vec![put(key, value)],
                    failure: vec![],
                };
                kv.txn(self.signed(request)).await.map(drop)
            }
            "fill" => {
                let first = number * self.batch;
                let keys = first..self.key_space.min(first + self.batch);
                let request = etcd::TxnRequest {
                    success: keys.map(|number| put(self.key(number), value)).collect(),
                    ..Default::default()
                };
                kv.txn(self.signed(request)).await.map(drop)
            }
            _ => {
                let request = etcd::PutRequest {
                    key,
                    value: value.clone(),
                    ..Default::default()
                };
                kv.put(self.signed(request)).await.map(drop)
            }
        }
    }
}

fn put(key: Bytes, value: &Bytes) -> etcd::RequestOp {
    let put = etcd::PutRequest {
        key,
        value: value.clone(),
        ..Default::default()
    };
    let request = Some(etcd::request_op::Request::RequestPut(put));
    etcd::RequestOp { request }
}

/// What all watchers together have seen.
struct Watched {
    /// Watchers that are there.
    ready: AtomicU64,
    /// Events that came.
    seen: AtomicU64,
    delivery: Delivery,
}

/// Sees every key; counts events until its connection or the program ends.
async fn watcher(channel: Channel, load: Arc<Load>, watched: Arc<Watched>) -> Result<(), Failure> {
    let create = etcd::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let request_union = Some(etcd::watch_request::RequestUnion::CreateRequest(create));
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(etcd::WatchRequest { request_union }).await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut grpc =
        etcd::watch_client::WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut answers = grpc.watch(load.signed(requests)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.created {
            watched.ready.fetch_add(1, Ordering::Release);
        }
        let (now, mut ours) = (watched.delivery.now(), 0);
        for event in answer.events {
            let kv = etcd::Event::decode(event)?.kv.unwrap_or_default();
            if kv.key.len() == load.key_size {
                watched.delivery.came(&kv.value, now);
                ours += 1;
            }
        }
        watched.seen.fetch_add(ours, Ordering::AcqRel);
    }
    Err("a watch ended".into())
}

async fn until(what: &AtomicU64, count: u64, name: &str) -> Result<(), Failure> {
    let mut last = (what.load(Ordering::Acquire), Instant::now());
    while last.0 < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = what.load(Ordering::Acquire);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(10) {
            return Err(format!("only {now} of {count} {name} came").into());
        }
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    // SAFETY: all zero is a valid rusage, and getrusage only writes it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

async fn run(load: Load) -> Result<(), Failure> {
    let load = Arc::new(load);
    let mut channels = Vec::with_capacity(load.connections);
    let given = load.identity != Identity::default();
    let tls = given.then(|| secure(load.identity.clone())).transpose()?;
    let tls = tls.map(Arc::new);
    for index in 0..load.connections {
        channels.push(channel(
            &load.endpoints[index % load.endpoints.len()],
            &tls,
        )?);
    }
    let value = Bytes::from(vec![b'x'; load.val_size]);
    for channel in &channels {
        load.once(channel, 0, &value).await?;
    }
    let watched = Arc::new(Watched {
        ready: AtomicU64::new(0),
        seen: AtomicU64::new(0),
        delivery: Delivery::new(),
    });
    let mut watchers = JoinSet::new();
    if load.verb == "watch" {
        for index in 0..load.watchers {
            let channel = channels[index % channels.len()].clone();
            watchers.spawn(watcher(channel, load.clone(), watched.clone()));
        }
        until(&watched.ready, load.watchers as u64, "watchers").await?;
    }
    let next = Arc::new(AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut clients: JoinSet<Result<Vec<u32>, tonic::Status>> = JoinSet::new();
    for index in 0..load.clients {
        let (load, next, value) = (load.clone(), next.clone(), value.clone());
        let watched = watched.clone();
        let channel = channels[index % channels.len()].clone();
        clients.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let due = load.due(number);
                let over = load.duration.map_or(number >= load.total, |length| {
                    due.max(began.elapsed()) >= length
                });
                if !over && load.rate.is_some() {
                    tokio::time::sleep_until((began + due).into()).await;
                }
                if over {
                    return Ok(times);
                }
                let stamped = (load.verb == "watch").then(|| watched.delivery.stamp(&value));
                let value = stamped.as_ref().unwrap_or(&value);
                let asked = Instant::now();
                load.once(&channel, number, value).await?;
                times.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = clients.join_next().await {
        times.extend(done??);
    }
    if load.verb == "watch" {
        until(
            &watched.seen,
            times.len() as u64 * load.watchers as u64,
            "events",
        )
        .await?;
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    times.sort_unstable();
    report(&load, &times, took, cpu, &watched);
    Ok(())
}

fn report(load: &Load, times: &[u32], took: f64, cpu: f64, watched: &Watched) {
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .map_or(0.0, |&us| f64::from(us) / 1000.0)
    };
    let (p50, p90, p99, p999) = (at(0.5), at(0.9), at(0.99), at(0.999));
    let rate = times.len() as f64 / took;
    let count = times.len().max(1) as f64;
    let mean = times.iter().map(|&us| f64::from(us)).sum::<f64>() / count;
    let spread = times.iter().map(|&us| (f64::from(us) - mean).powi(2));
    let stddev = (spread.sum::<f64>() / count).sqrt() / 1000.0;
    let events = watched.seen.load(Ordering::Acquire);
    let delivered = |part: f64| watched.delivery.at(part).as_secs_f64() * 1000.0;
    let (event_p50, event_p99) = (delivered(0.5), delivered(0.99));
    let event_rate = events as f64 / took;
    if load.json {
        let found = serde_json::json!({
            "verb": load.verb, "clients": load.clients, "connections": load.connections, "ops": times.len(),
            "seconds": took, "ops_per_s": rate, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "p999_ms": p999,
            "max_ms": at(1.0), "stddev_ms": stddev,
            "cpu_s": cpu, "events": events, "events_per_s": event_rate,
            "event_p50_ms": event_p50, "event_p99_ms": event_p99,
        });
        println!("{found}");
        return;
    }
    println!(
        "{}: {} in {took:.2} s, {rate:.0}/s, {} clients on {} connections",
        load.verb,
        times.len(),
        load.clients,
        load.connections
    );
    println!("ms: p50 {p50:.3}, p90 {p90:.3}, p99 {p99:.3}, p99.9 {p999:.3}; own CPU {cpu:.2} s");
    if load.verb == "watch" {
        println!(
            "{events} events to {} watchers, {event_rate:.0}/s, ms from the put's call: p50 {event_p50:.3}, p99 {event_p99:.3}",
            load.watchers
        );
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let done = Load::read(words.into_iter()).and_then(|load| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(run(load))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvload: {error}");
            ExitCode::FAILURE
        }
    }
}
