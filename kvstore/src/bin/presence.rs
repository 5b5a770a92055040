//! fleet-presence: holds a machine's lease, so that a busy or restarting fleetd is not a dead machine.
//!
//! `fleet-presence CONFIG.json` (`-` reads standard input). The settings: `endpoints` (URLs), `socket` (control socket
//! to make), `lease_file` (where the lease id is kept, for this boot), `page` (shared page to write), and optionally
//! `ttl` (s, 3), `grace` (s, 60) and `boot_id` (the kernel's). SIGTERM ends it; the lease is left for a successor.
//!
//! The lease is renewed each TTL/3 until `grace` after the last check-in. Only the store's word that there is no such
//! lease means lost; silence never does. When lost, a new lease is taken. After the grace nothing is renewed or taken
//! until the next check-in.
//!
//! Control socket: one JSON object a line, both ways. To a client, at once if there is a lease and at each change:
//!   {"event":"lease","lease":ID}               ID is a number
//! Requests, each answered by {"ok":true,"lease":ID or 0,"answered_ms":MS or 0,"renewing":BOOL}, or {"ok":false,"error":TEXT}:
//!   {"op":"checkin"}                           fleetd lives; the grace begins anew
//!   {"op":"status"}                            asks, and counts as no check-in
//!   {"op":"endpoints","endpoints":[URL, ...]}  from now on these
//!   {"op":"announced","lease":ID}              the cluster knows the machine under this lease (another one is ignored)
//!
//! Shared page: bytes 0..8 the CLOCK_BOOTTIME of the last answered renewal in ms, 8..16 the lease id, 16..24 like 0..8 but
//! of renewals under a lease that was announced (monitors go by it), little endian, each written whole.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvstore::client::{Client, Retry, RENEWAL_ATTEMPT};
use kvstore::pb::etcd;
use kvstore::report;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{watch, Notify};

const PAGE_BYTES: usize = 4096;
const LINE_BYTES: u64 = 64 * 1024;
const CALL_WAIT: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    endpoints: Vec<String>,
    socket: PathBuf,
    lease_file: PathBuf,
    page: PathBuf,
    #[serde(default = "three")]
    ttl: u32,
    #[serde(default = "sixty")]
    grace: f64,
    boot_id: Option<String>,
}

fn three() -> u32 {
    3
}

fn sixty() -> f64 {
    60.0
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    boot: String,
    lease: i64,
    #[serde(default)]
    announced: bool,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Asked {
    Checkin,
    Status,
    Endpoints { endpoints: Vec<String> },
    Announced { lease: i64 },
}

/// The page that monitors read without asking anyone.
struct Page(*mut AtomicU64);

impl Page {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(PAGE_BYTES as u64)?;
        // SAFETY: a fresh shared mapping of a file that is as long as the page; checked before use, kept for ever.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self(at.cast()))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < 3);
        // SAFETY: the words are inside the mapping, aligned, and only touched atomically.
        unsafe { &*self.0.add(index) }
    }

    fn answered(&self, lease: i64, announced: bool) {
        let now = boot_time_ms().to_le();
        self.word(1)
            .store((lease as u64).to_le(), Ordering::Release);
        self.word(0).store(now, Ordering::Release);
        if announced {
            self.word(2).store(now, Ordering::Release);
        }
    }

    /// The lease of the last answer was announced after it.
    fn announced(&self) {
        self.word(2)
            .store(self.word(0).load(Ordering::Acquire), Ordering::Release);
    }

    fn answered_ms(&self) -> u64 {
        u64::from_le(self.word(0).load(Ordering::Acquire))
    }
}

fn boot_time_ms() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes the timespec it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

struct Holder {
    client: Client,
    page: Page,
    lease: watch::Sender<i64>,
    /// The cluster knows the machine under the lease.
    announced: Cell<bool>,
    checked_in: Cell<Instant>,
    called: Notify,
    failed: RefCell<String>,
    grace: Duration,
    ttl: u32,
    file: PathBuf,
    boot: String,
}

impl Holder {
    fn renewing(&self) -> bool {
        self.checked_in.get().elapsed() < self.grace
    }

    /// Renews for ever, or takes a lease where there is none.
    async fn hold(&self) {
        let every = Duration::from_secs(u64::from(self.ttl)) / 3;
        loop {
            let began = Instant::now();
            if !self.renewing() {
                self.called.notified().await;
                continue;
            }
            let done = self.once().await;
            let wait = if done.is_ok() {
                every.saturating_sub(began.elapsed())
            } else {
                RENEWAL_ATTEMPT / 5
            };
            self.say(done.err());
            tokio::time::sleep(wait).await;
        }
    }

    /// Logs a failure when it is another than the last one.
    fn say(&self, failure: Option<String>) {
        let failure = failure.unwrap_or_default();
        if *self.failed.borrow() != failure {
            report!(
                "fleet-presence: {}",
                if failure.is_empty() {
                    "the store answers again"
                } else {
                    &failure
                }
            );
            self.failed.replace(failure);
        }
    }

    async fn once(&self) -> Result<(), String> {
        let lease = *self.lease.borrow();
        if lease != 0 {
            match self.client.keep_alive(lease).await {
                Ok(ttl) if ttl > 0 => {
                    self.page.answered(lease, self.announced.get());
                    return Ok(());
                }
                Ok(_) => report!("fleet-presence: lease {lease:x} is lost"),
                Err(status) if status.message().contains("requested lease not found") => {
                    report!("fleet-presence: lease {lease:x} is lost");
                }
                Err(status) => {
                    return Err(format!(
                        "lease {lease:x} was not renewed: {}",
                        status.message()
                    ))
                }
            }
        }
        let request = etcd::LeaseGrantRequest {
            ttl: i64::from(self.ttl),
            id: 0,
        };
        let grant = self
            .client
            .call(Retry::Safe, request, |channel, request| async move {
                etcd::lease_client::LeaseClient::new(channel)
                    .lease_grant(request)
                    .await
            })
            .await
            .map_err(|status| format!("no lease was granted: {}", status.message()))?;
        self.announced.set(false);
        self.keep(grant.id)
            .map_err(|error| format!("{} was not written: {error}", self.file.display()))?;
        self.page.answered(grant.id, false);
        self.lease.send_replace(grant.id);
        Ok(())
    }

    fn keep(&self, lease: i64) -> std::io::Result<()> {
        let text = serde_json::to_vec(&Kept {
            version: 1,
            boot: self.boot.clone(),
            lease,
            announced: self.announced.get(),
        })?;
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, &self.file)
    }

    fn answer(&self, line: &str) -> serde_json::Value {
        match serde_json::from_str(line) {
            Ok(Asked::Checkin) => {
                self.checked_in.set(Instant::now());
                self.called.notify_one();
            }
            Ok(Asked::Status) => {}
            Ok(Asked::Announced { lease }) => {
                if lease != 0 && lease == *self.lease.borrow() && !self.announced.replace(true) {
                    self.page.announced();
                    if let Err(error) = self.keep(lease) {
                        eprintln!(
                            "fleet-presence: {} was not written: {error}",
                            self.file.display()
                        );
                    }
                }
            }
            Ok(Asked::Endpoints { endpoints }) => {
                if let Err(status) = self.client.set_endpoints(&endpoints) {
                    return serde_json::json!({"ok": false, "error": status.message()});
                }
            }
            Err(error) => return serde_json::json!({"ok": false, "error": error.to_string()}),
        }
        serde_json::json!({
            "ok": true,
            "lease": *self.lease.borrow(),
            "answered_ms": self.page.answered_ms(),
            "renewing": self.renewing(),
        })
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read.take(LINE_BYTES)).lines();
        let mut lease = self.lease.subscribe();
        lease.mark_changed();
        loop {
            let value = tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => {
                        lines.get_mut().get_mut().set_limit(LINE_BYTES);
                        self.answer(&line)
                    }
                    None => return Ok(()),
                },
                changed = lease.changed() => {
                    let now = *lease.borrow_and_update();
                    if changed.is_err() {
                        return Ok(());
                    }
                    if now == 0 {
                        continue;
                    }
                    serde_json::json!({"event": "lease", "lease": now})
                }
            };
            write.write_all(format!("{value}\n").as_bytes()).await?;
        }
    }
}

fn configured() -> Result<Config, Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        return Err("usage: fleet-presence CONFIG.json (`-` for standard input)".into());
    };
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", Path::new(&path).display()))?;
    }
    let config: Config =
        serde_json::from_str(&text).map_err(|error| format!("the settings are wrong: {error}"))?;
    if config.ttl == 0 || !(config.grace > 0.0 && config.grace < 1e9) {
        return Err("the settings are wrong: `ttl` and `grace` are seconds above 0".into());
    }
    Ok(config)
}

async fn run(config: Config) -> Result<(), Failure> {
    let boot = match config.boot_id {
        Some(boot) => boot,
        None => fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_string(),
    };
    let kept = fs::read(&config.lease_file)
        .ok()
        .and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    let (lease, announced) = kept
        .filter(|kept| kept.version == 1 && kept.boot == boot)
        .map_or((0, false), |kept| (kept.lease, kept.announced));
    let client =
        Client::new(&config.endpoints, CALL_WAIT).map_err(|status| status.message().to_string())?;
    if config.socket.exists() {
        fs::remove_file(&config.socket)?;
    }
    let listener = UnixListener::bind(&config.socket)?;
    let holder = Rc::new(Holder {
        client,
        page: Page::open(&config.page)?,
        lease: watch::Sender::new(lease),
        announced: Cell::new(announced),
        checked_in: Cell::new(Instant::now()),
        called: Notify::new(),
        failed: RefCell::default(),
        grace: Duration::from_secs_f64(config.grace),
        ttl: config.ttl,
        file: config.lease_file,
        boot,
    });
    let renewal = holder.clone();
    tokio::task::spawn_local(async move { renewal.hold().await });
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let holder = holder.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = holder.serve(stream).await {
                        report!("fleet-presence: a control connection broke: {error}");
                    }
                });
            }
            _ = end.recv() => return Ok(()),
        }
    }
}

fn main() -> std::process::ExitCode {
    let done = configured().and_then(|config| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        tokio::task::LocalSet::new().block_on(&runtime, run(config))
    });
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-presence: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
