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

mod holder;
mod page;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use kvstore::client::Client;
use kvstore::report;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::{watch, Notify};
use tracing::warn;

use crate::holder::{Holder, Kept};
use crate::page::Page;

const CALL_WAIT: Duration = Duration::from_secs(2);

pub type Failure = Box<dyn std::error::Error>;

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
                        warn!(%error, "a control connection broke");
                    }
                });
            }
            _ = end.recv() => return Ok(()),
        }
    }
}

fn main() -> std::process::ExitCode {
    report::attend("fleet-presence");
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
