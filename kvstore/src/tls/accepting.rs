//! The side that is connected to: it shows its certificate, and may want one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::ring::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::certificate::Facts;
use super::renewal::Renewed;
use super::settings::{Rules, Settings};
use super::verify::{Clients, Names};
use super::{files, origin, CommonName, TlsError};
use crate::stream::{Socket, Stream};

/// How long a handshake may take, as in etcd.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// At most one refusal in this time is logged: anybody who reaches the port can cause them.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What the files say now.
struct Ready {
    config: Arc<ServerConfig>,
    clients: Option<Arc<Clients>>,
}

/// Takes connections with TLS.
pub struct Acceptor {
    ready: Renewed<Ready>,
    /// Whether a certificate is good only from the addresses that it names.
    by_origin: bool,
    knows_users: bool,
    /// Whom it is for, in the log.
    side: &'static str,
    log: Mutex<Log>,
}

struct Log {
    last: Option<Instant>,
    skipped: u64,
}

impl Acceptor {
    /// For the clients of a member, by their certificates' common names where the settings say so.
    pub fn for_clients(settings: Settings, rules: Rules) -> Result<Self, TlsError> {
        let knows_users = settings.client_cert_auth;
        Self::new(
            ("client", "clients' TLS configuration"),
            settings,
            rules,
            false,
            knows_users,
        )
    }

    /// For the other members, each from where its certificate says that it is.
    pub fn for_peers(settings: Settings, rules: Rules) -> Result<Self, TlsError> {
        let by_origin = !settings.skip_client_san_verification;
        Self::new(
            ("peer", "peers' TLS configuration"),
            settings,
            rules,
            by_origin,
            false,
        )
    }

    fn new(
        (side, name): (&'static str, &str),
        settings: Settings,
        rules: Rules,
        by_origin: bool,
        knows_users: bool,
    ) -> Result<Self, TlsError> {
        let files = [
            &settings.cert_file,
            &settings.key_file,
            &settings.trusted_ca_file,
            &settings.crl_file,
        ];
        let files = files.map(Clone::clone);
        files::warn_of_readers(&settings.key_file);
        Ok(Self {
            ready: Renewed::new(name, files, move || ready(&settings, &rules))?,
            by_origin,
            knows_users,
            side,
            log: Mutex::new(Log {
                last: None,
                skipped: 0,
            }),
        })
    }

    /// Shakes hands; None, and a line in the log, when the other side is not let in.
    pub async fn accept(&self, socket: Socket) -> Option<(Stream, Option<CommonName>)> {
        let from = socket.peer();
        match tokio::time::timeout(HANDSHAKE_WAIT, self.shake(socket)).await {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                debug!(%error, "a connection ended before its TLS handshake");
            }
            Ok(Err(error)) => self.tell(from, &error.to_string()),
            Err(_) => self.tell(from, "the TLS handshake took too long"),
        }
        None
    }

    async fn shake(&self, socket: Socket) -> std::io::Result<(Stream, Option<CommonName>)> {
        let ready = self.ready.current();
        let from = socket.peer();
        let acceptor = TlsAcceptor::from(ready.config.clone());
        let stream = acceptor.accept(socket).await?;
        let connection = stream.get_ref().1;
        ready.judge_again(connection)?;
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let facts = shown.and_then(Facts::read);
        if let (true, Some(facts), Some(from)) = (self.by_origin, &facts, from) {
            origin::check(facts, from).await?;
        }
        let name = facts.map(|facts| facts.common_name);
        let name = name.filter(|name| self.knows_users && !name.is_empty());
        let name = name.map(|name| CommonName(name.into()));
        Ok((Stream::Tls(Box::new(stream.into())), name))
    }

    fn tell(&self, from: Option<std::net::IpAddr>, why: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            log.skipped += 1;
            return;
        }
        log.last = Some(Instant::now());
        let more = std::mem::take(&mut log.skipped);
        drop(log);
        let from = from.map_or_else(|| "a socket".to_owned(), |from| from.to_string());
        warn!(
            remote_addr = from,
            skipped_lines = more,
            error = why,
            "rejected connection on {} endpoint",
            self.side
        );
    }
}

impl Ready {
    /// A session that goes on showed its certificate earlier, and that may be good no longer.
    fn judge_again(&self, connection: &ServerConnection) -> std::io::Result<()> {
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let (true, Some(clients)) = (resumed, &self.clients) else {
            return Ok(());
        };
        let chain = connection.peer_certificates().unwrap_or_default();
        let Some((first, rest)) = chain.split_first() else {
            return Err(std::io::Error::other("the session has no certificate"));
        };
        clients
            .verify_client_cert(first, rest, UnixTime::now())
            .map(drop)
            .map_err(std::io::Error::other)
    }
}

fn ready(settings: &Settings, rules: &Rules) -> Result<Ready, TlsError> {
    let clients = if settings.wants_certificates() {
        let names = Names {
            common: settings.allowed_cns.clone(),
            hosts: settings.allowed_hostnames.clone(),
        };
        let revoked = if settings.crl_file.as_os_str().is_empty() {
            Vec::new()
        } else {
            files::revocations(&settings.crl_file)?
        };
        let authorities = files::authorities(&settings.trusted_ca_file)?;
        let clients = Clients::new(authorities, revoked, names, &rules.provider)?;
        Some(Arc::new(clients))
    } else {
        None
    };
    let chain = files::chain(&settings.cert_file)?;
    let key = files::key(&settings.key_file)?;
    let builder = ServerConfig::builder_with_provider(rules.provider.clone())
        .with_protocol_versions(&rules.versions)
        .map_err(super::unusable)?;
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(clients.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(super::unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A fresh one with each configuration: a session that began under other files does not go on.
    config.ticketer = Ticketer::new().map_err(super::unusable)?;
    Ok(Ready {
        config: Arc::new(config),
        clients,
    })
}
