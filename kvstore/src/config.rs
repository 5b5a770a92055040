//! What a member is told at start: the checked form of the JSON that the server command hands over.
//!
//! Not here: command-line flags and environment variables (`kvstore/flags.py` reads those).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Why a member can't start with what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

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
    /// Milliseconds between two heartbeats.
    pub heartbeat_interval: u64,
    /// Milliseconds without a leader after which a member stands for election.
    pub election_timeout: u64,
    /// Entries kept for followers that lag, before a snapshot has to be sent.
    pub snapshot_count: u64,
    pub quota_backend_bytes: u64,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    /// Whether a change of the membership must leave a quorum of started, connected members.
    pub strict_reconfig_check: bool,
    /// Allows listening beyond loopback without TLS.
    pub insecure: bool,
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
            heartbeat_interval: 100,
            election_timeout: 1000,
            snapshot_count: 10_000,
            quota_backend_bytes: 2 * 1024 * 1024 * 1024,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            strict_reconfig_check: true,
            insecure: false,
            peer_url_overrides: String::new(),
        }
    }
}

/// Longest election timeout that etcd accepts, in milliseconds.
const MAX_ELECTION_TIMEOUT_MS: u64 = 50_000;

impl Config {
    /// Reads and checks the JSON; every error is a sentence that names the setting.
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
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
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
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
        for url in self.all_urls() {
            split_url(url)?;
        }
        if self.listen_client_urls.is_empty() || self.listen_peer_urls.is_empty() {
            return wrong("--listen-client-urls and --listen-peer-urls each need at least one URL");
        }
        for (flag, urls) in [
            ("--listen-client-urls", &self.listen_client_urls),
            ("--listen-peer-urls", &self.listen_peer_urls),
        ] {
            for url in urls {
                for address in addresses(url)? {
                    if !address.ip().is_loopback() && !self.insecure {
                        return wrong(format!(
                            "{flag} {url} is reachable from other machines without TLS; pass --insecure if that \
                             is what you want, or listen on 127.0.0.1"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn all_urls(&self) -> impl Iterator<Item = &String> {
        self.listen_client_urls
            .iter()
            .chain(&self.advertise_client_urls)
            .chain(&self.listen_peer_urls)
            .chain(&self.initial_advertise_peer_urls)
            .chain(self.initial_cluster.iter().map(|(_, url)| url))
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
                split_url(url)?;
            }
            map.insert(parsed, urls);
        }
        Ok(map)
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval)
    }

    pub fn election_ticks(&self) -> usize {
        (self.election_timeout / self.heartbeat_interval) as usize
    }

    /// How long a request may wait for agreement: etcd's 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(5_000 + 2 * self.election_timeout)
    }
}

/// Splits `http://host:port`.
pub fn split_url(url: &str) -> Result<(&str, u16), ConfigError> {
    if url.starts_with("https://") {
        return wrong(format!(
            "{url}: this build serves http only, TLS is not there yet"
        ));
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return wrong(format!(
            "URL scheme must be http, https, unix, or unixs: {url}"
        ));
    };
    let rest = rest.trim_end_matches('/');
    if rest.contains('/') {
        return wrong(format!("URL must not contain a path: {url}"));
    }
    let Some((host, port)) = rest.rsplit_once(':') else {
        return wrong(format!(
            "URL address does not have the form \"host:port\": {url}"
        ));
    };
    let Ok(port) = port.parse::<u16>() else {
        return wrong(format!(
            "URL address does not have the form \"host:port\": {url}"
        ));
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// The socket addresses that a listen URL stands for.
pub fn addresses(url: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    let (host, port) = split_url(url)?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host == "localhost" {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
    }
    match (host, port).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(e) => wrong(format!("the host of {url} can't be resolved: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_a_cluster_of_one_on_loopback() {
        let config = Config::parse("{}").unwrap();
        assert_eq!(
            config.initial_cluster,
            vec![("default".to_owned(), "http://localhost:2380".to_owned())]
        );
        assert_eq!(config.founders().unwrap().len(), 1);
        assert_eq!(config.election_ticks(), 10);
    }

    #[test]
    fn each_bad_setting_names_itself() {
        for (json, part) in [
            (
                r#"{"heartbeat_interval": 300}"#,
                "--election-timeout[1000ms]",
            ),
            (
                r#"{"listen_client_urls": ["http://0.0.0.0:1"]}"#,
                "--insecure",
            ),
            (r#"{"listen_peer_urls": ["https://127.0.0.1:1"]}"#, "TLS"),
            (r#"{"listen_peer_urls": ["127.0.0.1:1"]}"#, "scheme"),
            (
                r#"{"initial_cluster_state": "old"}"#,
                "--initial-cluster-state",
            ),
            (r#"{"colour": 1}"#, "colour"),
        ] {
            let text = Config::parse(json).unwrap_err().to_string();
            assert!(text.contains(part), "{json}: {text}");
        }
        assert!(
            Config::parse(r#"{"listen_client_urls": ["http://0.0.0.0:1"], "insecure": true}"#)
                .is_ok()
        );
    }

    #[test]
    fn founders_must_agree_with_the_advertised_urls() {
        let config =
            Config::parse(r#"{"name": "a", "initial_cluster": [["b", "http://127.0.0.1:1"]]}"#)
                .unwrap();
        assert!(config
            .founders()
            .unwrap_err()
            .to_string()
            .contains("couldn't find local name"));
        let config =
            Config::parse(r#"{"name": "a", "initial_cluster": [["a", "http://127.0.0.1:1"]]}"#)
                .unwrap();
        assert!(config
            .founders()
            .unwrap_err()
            .to_string()
            .contains("--initial-advertise-peer-urls"));
    }

    #[test]
    fn overrides_are_keyed_by_hexadecimal_ids() {
        let json = r#"{"peer_url_overrides": "{\"ff\": [\"http://127.0.0.1:7\"]}"}"#;
        let config = Config::parse(json).unwrap();
        assert_eq!(
            config.overrides().unwrap()[&255],
            vec!["http://127.0.0.1:7".to_owned()]
        );
    }
}
