//! The side that connects: whom it believes, and what it shows.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::ClientConfig;
use tokio_rustls::TlsConnector;

use super::renewal::Renewed;
use super::settings::{Rules, Settings};
use super::verify::{Names, Servers};
use super::{files, wrong, TlsError};
use crate::stream::{Socket, Stream};

/// What a client is given: whom to believe, and who it is. Without authorities the system's are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub cacert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Believes whoever answers: for trials alone.
    pub insecure_skip_verify: bool,
    /// The name that a server's certificate must be for, instead of the endpoint's host.
    pub server_name: Option<String>,
}

#[derive(Default)]
struct Parts {
    authorities: Option<PathBuf>,
    shown: Option<(PathBuf, PathBuf)>,
    revoked: Option<PathBuf>,
    names: Names,
    credulous: bool,
}

/// Opens connections with TLS.
pub struct Connector {
    config: Renewed<Arc<ClientConfig>>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// For a client.
    pub fn for_client(identity: Identity) -> Result<Self, TlsError> {
        let shown = match (identity.cert, identity.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (cert, key) => {
                let text = |path: Option<PathBuf>| path.unwrap_or_default().display().to_string();
                return wrong(format!(
                    "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                    text(key),
                    text(cert)
                ));
            }
        };
        let parts = Parts {
            authorities: identity.cacert,
            shown,
            credulous: identity.insecure_skip_verify,
            ..Parts::default()
        };
        let mut connector = Self::new("client's TLS configuration", parts, Rules::default())?;
        connector.server_name = identity.server_name.filter(|name| !name.is_empty());
        Ok(connector)
    }

    /// For a member that dials the others. Who makes its own certificate believes the others', as in etcd: nobody could
    /// vouch for them.
    pub fn for_peers(settings: &Settings, rules: Rules) -> Result<Self, TlsError> {
        let given = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        let pair = |cert, key| given(cert).zip(given(key));
        let parts = Parts {
            authorities: given(&settings.trusted_ca_file),
            shown: pair(&settings.client_cert_file, &settings.client_key_file)
                .or_else(|| pair(&settings.cert_file, &settings.key_file)),
            revoked: given(&settings.crl_file),
            names: Names {
                common: settings.allowed_cns.clone(),
                hosts: settings.allowed_hostnames.clone(),
            },
            credulous: settings.auto,
        };
        let mut connector = Self::new("TLS configuration for dialing peers", parts, rules)?;
        let name = Some(settings.server_name.clone());
        connector.server_name = name.filter(|name| !name.is_empty());
        Ok(connector)
    }

    fn new(name: &str, parts: Parts, rules: Rules) -> Result<Self, TlsError> {
        let pair = parts.shown.clone();
        let files = pair.into_iter().flat_map(|(cert, key)| [cert, key]);
        let files = files.chain(parts.authorities.clone());
        let files: Vec<PathBuf> = files.chain(parts.revoked.clone()).collect();
        Ok(Self {
            config: Renewed::new(name, files, move || configure(&parts, &rules))?,
            server_name: None,
        })
    }

    /// Shakes hands with whoever is at `host`; a socket file's host is localhost.
    pub async fn connect(&self, host: &str, socket: Socket) -> std::io::Result<Stream> {
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&*self.config.current()));
        let stream = connector.connect(name, socket).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

fn configure(parts: &Parts, rules: &Rules) -> Result<Arc<ClientConfig>, TlsError> {
    let servers = if parts.credulous {
        Servers::credulous(&rules.provider)
    } else {
        let authorities = match &parts.authorities {
            Some(path) => files::authorities(path)?,
            None => files::system_authorities(),
        };
        let revoked = parts.revoked.as_deref().map(files::revocations);
        let revoked = revoked.transpose()?.unwrap_or_default();
        Servers::new(authorities, revoked, parts.names.clone(), &rules.provider)?
    };
    let builder = ClientConfig::builder_with_provider(rules.provider.clone())
        .with_protocol_versions(&rules.versions)
        .map_err(super::unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match &parts.shown {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(files::chain(cert)?, files::key(key)?)
            .map_err(super::unusable)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
