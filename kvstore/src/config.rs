//! What a member is told at start: the checked form of the JSON that the server command hands over.
//!
//! Not here: what URLs mean (`address`), certificates (`tls`), command-line flags and environment variables (`kvstore/flags.py` reads those).

mod tls;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::address::Address;
use crate::auth::password::DEFAULT_COST;
use crate::auth::token::{self, DEFAULT_TTL};
use crate::compactor::Retention;
use crate::gateway;
use crate::member::Schedule;
use crate::report;
use crate::slow;
use crate::tls::{Settings, TlsError};
use tls::check_reach;

/// Why a member can't start with what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl From<TlsError> for ConfigError {
    fn from(error: TlsError) -> Self {
        Self(error.0)
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}

/// A member's settings; names and defaults are etcd's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_client_urls: Vec<String>,
    pub advertise_client_urls: Vec<String>,
    pub listen_peer_urls: Vec<String>,
    pub initial_advertise_peer_urls: Vec<String>,
    /// Pairs of member name and one peer URL; a name may come several times.
    pub initial_cluster: Vec<(String, String)>,
    /// `new` or `existing`.
    pub initial_cluster_state: String,
    pub initial_cluster_token: String,
    /// Whether a member that has data goes on without the others.
    pub force_new_cluster: bool,
    /// Milliseconds between two heartbeats.
    pub heartbeat_interval: u64,
    /// Milliseconds without a leader after which a member stands for election.
    pub election_timeout: u64,
    /// Entries kept for followers that lag, before a snapshot has to be sent.
    pub snapshot_count: u64,
    pub quota_backend_bytes: u64,
    /// `periodic` or `revision`, and how much is kept: milliseconds or revisions, 0 for all.
    pub auto_compaction_mode: String,
    pub auto_compaction_retention: u64,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    /// Whether a change of the membership must leave a quorum of started, connected members.
    pub strict_reconfig_check: bool,
    /// Milliseconds between two checks whether the members hold the same; 0 for none.
    pub corrupt_check_time: u64,
    /// Whether that is checked before anybody is served, too.
    pub initial_corrupt_check: bool,
    /// Whether hashes are noted at compactions and compared, and the milliseconds between two comparisons.
    pub compact_hash_check: bool,
    pub compact_hash_check_time: u64,
    /// Milliseconds between two notes of what is left of a lease, for the leaders to come; 0: none are made.
    pub lease_checkpoint_interval: u64,
    /// Milliseconds between two tellings of progress to a watch that asked for them.
    pub watch_progress_notify_interval: u64,
    /// `simple`, `jwt,sign-method=...` or nothing, as etcd's `--auth-token`.
    pub auth_token: String,
    /// Seconds that a simple token lives after it was shown last.
    pub auth_token_ttl: u64,
    pub bcrypt_cost: u32,
    /// Where backups are put, none if empty; milliseconds between two of them; how many are kept.
    pub backup_dir: PathBuf,
    pub backup_interval: u64,
    pub backup_keep: usize,
    pub log: report::Settings,
    /// Origins and names of the host by which plain HTTP is answered.
    pub http: gateway::Settings,
    /// From which time on requests are told of.
    pub slow: slow::Settings,
    /// `basic`, or `extensive`: also how long calls take.
    pub metrics: String,
    /// Allows listening beyond loopback where whoever comes is let in.
    pub insecure: bool,
    pub client_tls: Settings,
    pub peer_tls: Settings,
    pub cipher_suites: Vec<String>,
    pub tls_min_version: String,
    pub tls_max_version: String,
    /// Years that a certificate of a member's own making is good.
    pub self_signed_cert_validity: u32,
    /// A file, or the JSON itself: member id -> peer URLs that hold until the membership says the same.
    pub peer_url_overrides: String,
}

impl Default for Config {
    fn default() -> Self {
        let urls = |port: u16| vec![format!("http://localhost:{port}")];
        Self {
            name: "default".into(),
            data_dir: PathBuf::new(),
            listen_client_urls: urls(2379),
            advertise_client_urls: urls(2379),
            listen_peer_urls: urls(2380),
            initial_advertise_peer_urls: urls(2380),
            initial_cluster: Vec::new(),
            initial_cluster_state: "new".into(),
            initial_cluster_token: "etcd-cluster".into(),
            force_new_cluster: false,
            heartbeat_interval: 100,
            election_timeout: 1000,
            snapshot_count: 10_000,
            quota_backend_bytes: 2 * 1024 * 1024 * 1024,
            auto_compaction_mode: "periodic".into(),
            auto_compaction_retention: 0,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            strict_reconfig_check: true,
            corrupt_check_time: 0,
            initial_corrupt_check: false,
            compact_hash_check: false,
            compact_hash_check_time: 60_000,
            lease_checkpoint_interval: 300_000,
            watch_progress_notify_interval: 600_000,
            auth_token: "simple".into(),
            auth_token_ttl: DEFAULT_TTL.as_secs(),
            bcrypt_cost: DEFAULT_COST,
            backup_dir: PathBuf::new(),
            backup_interval: 3_600_000,
            backup_keep: 24,
            log: report::Settings::default(),
            http: gateway::Settings::default(),
            slow: slow::Settings::default(),
            metrics: "basic".into(),
            insecure: false,
            client_tls: Settings::default(),
            peer_tls: Settings::default(),
            cipher_suites: Vec::new(),
            tls_min_version: "TLS1.2".into(),
            tls_max_version: String::new(),
            self_signed_cert_validity: 1,
            peer_url_overrides: String::new(),
        }
    }
}

/// Longest time that a certificate of a member's own making is good.
const MAX_VALIDITY_YEARS: u32 = 100;
/// Longest election timeout that etcd accepts, in milliseconds.
const MAX_ELECTION_TIMEOUT_MS: u64 = 50_000;
/// Largest request: with what goes with it, it must fit into one frame between members (`peer::MAX_FRAME_BYTES`).
const MAX_REQUEST_BYTES: usize = 48 * 1024 * 1024;

impl Config {
    /// Reads and checks the JSON; every error is a sentence that names the setting.
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
        let config = Self::read(json)?;
        config.check()?;
        Ok(config)
    }

    /// Reads the JSON, and does not look at what it says.
    pub fn read(json: &str) -> Result<Self, ConfigError> {
        let mut config: Config = serde_json::from_str(json)
            .map_err(|e| ConfigError(format!("the configuration can't be read: {e}")))?;
        if config.data_dir.as_os_str().is_empty() {
            config.data_dir = PathBuf::from(format!("{}.etcd", config.name));
        }
        if config.initial_cluster.is_empty() {
            let name = config.name.clone();
            config.initial_cluster = config
                .initial_advertise_peer_urls
                .iter()
                .map(|u| (name.clone(), u.clone()))
                .collect();
        }
        Ok(config)
    }

    /// Whether the settings make sense together; the log's are judged where it begins.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.watch_progress_notify_interval == 0 {
            return wrong("--watch-progress-notify-interval is 0".to_owned());
        }
        if self.compact_hash_check_time == 0 {
            return wrong("--compact-hash-check-time must be >0 (set to 0s)");
        }
        if self.heartbeat_interval == 0 || self.election_timeout < 5 * self.heartbeat_interval {
            return wrong(format!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                self.election_timeout, self.heartbeat_interval
            ));
        }
        if self.election_timeout > MAX_ELECTION_TIMEOUT_MS {
            return wrong(format!(
                "--election-timeout[{}ms] is too long, and should be set less than {MAX_ELECTION_TIMEOUT_MS}ms",
                self.election_timeout
            ));
        }
        if !["new", "existing"].contains(&self.initial_cluster_state.as_str()) {
            return wrong(format!(
                "--initial-cluster-state is 'new' or 'existing', not '{}'",
                self.initial_cluster_state
            ));
        }
        if self.max_request_bytes > MAX_REQUEST_BYTES {
            return wrong(format!(
                "--max-request-bytes {} is more than {MAX_REQUEST_BYTES}, which members can still pass to each other",
                self.max_request_bytes
            ));
        }
        if !["basic", "extensive"].contains(&self.metrics.as_str()) {
            return wrong(format!(
                "--metrics is 'basic' or 'extensive', not '{}'",
                self.metrics
            ));
        }
        self.retention()?;
        self.backups()?;
        self.http.access()?;
        for url in self.all_urls() {
            Address::parse(url)?;
        }
        if self.listen_client_urls.is_empty() || self.listen_peer_urls.is_empty() {
            return wrong("--listen-client-urls and --listen-peer-urls each need at least one URL");
        }
        self.check_tls()?;
        for (side, kind, urls, tls) in self.sides() {
            for url in urls {
                let address = Address::parse(url)?;
                if address.secure && !tls.is_offered() {
                    return wrong(format!(
                        "TLS key/cert (--{side}cert-file, --{side}key-file) must be provided for {kind} url {url} with \
                         HTTPS scheme"
                    ));
                }
                if !self.insecure {
                    check_reach(side, kind, url, &address, tls)?;
                }
            }
        }
        Ok(())
    }

    /// The peer URLs of this member and of those that its flags name.
    pub fn all_peer_urls(&self) -> impl Iterator<Item = &String> {
        self.listen_peer_urls
            .iter()
            .chain(&self.initial_advertise_peer_urls)
            .chain(self.initial_cluster.iter().map(|(_, url)| url))
    }

    fn all_urls(&self) -> impl Iterator<Item = &String> {
        self.listen_client_urls
            .iter()
            .chain(&self.advertise_client_urls)
            .chain(self.all_peer_urls())
    }

    /// The kind of tokens that this member gives and takes; reads the keys of signed ones.
    pub fn tokens(&self) -> Result<token::Kind, ConfigError> {
        token::Kind::named(&self.auth_token, self.auth_token_ttl)
    }

    /// The members that found a cluster together: name -> peer URLs.
    pub fn founders(&self) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, url) in &self.initial_cluster {
            members.entry(name.clone()).or_default().push(url.clone());
        }
        let Some(mine) = members.get(&self.name) else {
            return wrong(format!(
                "couldn't find local name \"{}\" in the initial cluster configuration",
                self.name
            ));
        };
        let mut mine = mine.clone();
        let mut advertised = self.initial_advertise_peer_urls.clone();
        mine.sort();
        advertised.sort();
        if mine != advertised {
            return wrong(format!(
                "--initial-cluster has {} for {}, but --initial-advertise-peer-urls is {}",
                mine.join(","),
                self.name,
                advertised.join(",")
            ));
        }
        Ok(members)
    }

    /// Peer URLs that hold instead of the membership's, by member id.
    pub fn overrides(&self) -> Result<HashMap<u64, Vec<String>>, ConfigError> {
        let given = self.peer_url_overrides.trim();
        if given.is_empty() {
            return Ok(HashMap::new());
        }
        let text = if given.starts_with('{') {
            given.to_owned()
        } else {
            match std::fs::read_to_string(given) {
                Ok(text) => text,
                // The file may come later: it is read again whenever a peer can't be reached.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
                Err(e) => return wrong(format!("--peer-url-overrides {given} can't be read: {e}")),
            }
        };
        let raw: HashMap<String, Vec<String>> = serde_json::from_str(&text).map_err(|e| {
            ConfigError(format!(
                "--peer-url-overrides is not a map from member id to a list of peer URLs: {e}"
            ))
        })?;
        let mut map = HashMap::new();
        for (id, urls) in raw {
            let Ok(parsed) = u64::from_str_radix(&id, 16) else {
                return wrong(format!(
                    "--peer-url-overrides: '{id}' is not a member id in hexadecimal"
                ));
            };
            for url in &urls {
                Address::parse(url)?;
            }
            map.insert(parsed, urls);
        }
        Ok(map)
    }

    /// What is kept of the past; None when nothing is compacted by itself.
    pub fn retention(&self) -> Result<Option<Retention>, ConfigError> {
        Retention::of(&self.auto_compaction_mode, self.auto_compaction_retention)
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval)
    }

    /// When backups are made, if they are.
    pub fn backups(&self) -> Result<Option<Schedule>, ConfigError> {
        if self.backup_dir.as_os_str().is_empty() {
            return Ok(None);
        }
        if self.backup_interval == 0 || self.backup_keep == 0 {
            return wrong("--backup-interval and --backup-keep are at least 1 each");
        }
        Ok(Some(Schedule {
            dir: self.backup_dir.clone(),
            interval: Duration::from_millis(self.backup_interval),
            keep: self.backup_keep,
        }))
    }

    /// Whether it is measured how long calls take.
    pub fn times_calls(&self) -> bool {
        self.metrics == "extensive"
    }

    /// How often it is noted what is left of a lease, in milliseconds.
    pub fn lease_checkpoint(&self) -> Option<u64> {
        (self.lease_checkpoint_interval > 0).then_some(self.lease_checkpoint_interval)
    }

    pub fn election_ticks(&self) -> usize {
        (self.election_timeout / self.heartbeat_interval) as usize
    }

    /// How long a request may wait for agreement: etcd's 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(5_000 + 2 * self.election_timeout)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
