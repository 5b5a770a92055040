//! How a member's connections are secured, as its settings say: with whom, and by which certificates.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::StartError;
use crate::address::Address;
use crate::config::{Config, ConfigError};
use crate::peer::Dialer;
use crate::tls::{self, Acceptor, Connector, Settings};

/// What a member accepts and dials with; None where there is no TLS.
pub(super) struct Channels {
    pub clients: Option<Arc<Acceptor>>,
    pub peers: Option<Arc<Acceptor>>,
    pub dialer: Dialer,
}

/// Reads the certificates, or makes those that a member makes for itself.
pub(super) fn secure(config: &Config) -> Result<Channels, StartError> {
    for sentence in config.idle_tls() {
        warn!("{sentence}");
    }
    Ok(prepare(config)?)
}

fn prepare(config: &Config) -> Result<Channels, ConfigError> {
    let rules = config.tls_rules()?;
    let client_urls = [&config.listen_client_urls, &config.advertise_client_urls];
    let peer_urls = [
        &config.listen_peer_urls,
        &config.initial_advertise_peer_urls,
    ];
    let clients = own(config, &config.client_tls, "client", &client_urls)?;
    let peers = own(config, &config.peer_tls, "peer", &peer_urls)?;
    let dials_tls = config.all_peer_urls().any(|url| url.starts_with("https:"));
    let dialer = if peers.is_offered() || dials_tls {
        Some(Connector::for_peers(&peers, rules.clone())?)
    } else {
        None
    };
    let clients = clients
        .is_offered()
        .then(|| Acceptor::for_clients(clients, rules.clone()));
    let peers = peers
        .is_offered()
        .then(|| Acceptor::for_peers(peers, rules));
    Ok(Channels {
        clients: clients.transpose()?.map(Arc::new),
        peers: peers.transpose()?.map(Arc::new),
        dialer: Dialer::new(dialer),
    })
}

/// The settings, with a certificate of the member's own making where they ask for one.
fn own(
    config: &Config,
    settings: &Settings,
    side: &str,
    urls: &[&Vec<String>],
) -> Result<Settings, ConfigError> {
    if !settings.auto || !settings.is_empty() {
        return Ok(Settings {
            auto: false,
            ..settings.clone()
        });
    }
    let mut hosts: Vec<String> = Vec::new();
    for url in urls.iter().copied().flatten() {
        let host = Address::parse(url)?
            .host()
            .unwrap_or("localhost")
            .to_owned();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let dir: &Path = &config.data_dir.join("fixtures").join(side);
    let years = config.self_signed_cert_validity;
    Ok(tls::with_own_certificate(settings, dir, &hosts, years)?)
}
