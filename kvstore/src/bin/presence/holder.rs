//! The lease: it is renewed while fleetd checks in, taken anew when it was lost, kept in a file, and told to clients of
//! the control socket.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kvstore::client::{Client, Retry, RENEWAL_ATTEMPT};
use kvstore::pb::etcd;
use kvstore::report::hex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{watch, Notify};
use tracing::{info, warn};

use crate::page::Page;

const LINE_BYTES: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
pub struct Kept {
    pub version: u32,
    pub boot: String,
    pub lease: i64,
    #[serde(default)]
    pub announced: bool,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Asked {
    Checkin,
    Status,
    Endpoints { endpoints: Vec<String> },
    Announced { lease: i64 },
}

pub struct Holder {
    pub client: Client,
    pub page: Page,
    pub lease: watch::Sender<i64>,
    /// The cluster knows the machine under the lease.
    pub announced: Cell<bool>,
    pub checked_in: Cell<Instant>,
    pub called: Notify,
    pub failed: RefCell<String>,
    pub grace: Duration,
    pub ttl: u32,
    pub file: PathBuf,
    pub boot: String,
}

impl Holder {
    fn renewing(&self) -> bool {
        self.checked_in.get().elapsed() < self.grace
    }

    /// Renews for ever, or takes a lease where there is none.
    pub async fn hold(&self) {
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
            if failure.is_empty() {
                info!("the store answers again");
            } else {
                warn!("{failure}");
            }
            self.failed.replace(failure);
        }
    }

    async fn once(&self) -> Result<(), String> {
        let lease = *self.lease.borrow();
        if lease != 0 {
            match self.client.keep_alive(lease).await {
                Ok(renewed) if renewed.ttl > 0 => {
                    self.page.answered(lease, self.announced.get());
                    return Ok(());
                }
                Ok(_) => warn!(lease_id = %hex(lease.cast_unsigned()), "the lease is lost"),
                Err(status) if status.message().contains("requested lease not found") => {
                    warn!(lease_id = %hex(lease.cast_unsigned()), "the lease is lost");
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

    pub async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
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
