//! Whether what is told of TLS goes together, with itself and with the URLs.

use super::{wrong, Config, ConfigError, MAX_VALIDITY_YEARS};
use crate::address::{resolve, Address, Place};
use crate::tls::{Rules, Settings};

impl Config {
    /// Where clients and peers are listened for, and with which certificates: flags' prefix, name, URLs, settings.
    pub(super) fn sides(&self) -> [(&'static str, &'static str, &[String], &Settings); 2] {
        [
            ("", "client", &self.listen_client_urls, &self.client_tls),
            ("peer-", "peer", &self.listen_peer_urls, &self.peer_tls),
        ]
    }

    pub(super) fn check_tls(&self) -> Result<(), ConfigError> {
        self.tls_rules()?;
        for (side, _, _, tls) in self.sides() {
            tls.check(side)?;
            if tls.auto && !(1..=MAX_VALIDITY_YEARS).contains(&self.self_signed_cert_validity) {
                return wrong(format!(
                    "selfSignedCertValidity is invalid,it should be greater than 0 and at most {MAX_VALIDITY_YEARS} years"
                ));
            }
        }
        Ok(())
    }

    /// What may be spoken where there is TLS.
    pub fn tls_rules(&self) -> Result<Rules, ConfigError> {
        let (min, max) = (&self.tls_min_version, &self.tls_max_version);
        Ok(Rules::read(&self.cipher_suites, min, max)?)
    }

    /// What is given of TLS and has no effect, each as a sentence.
    pub fn idle_tls(&self) -> Vec<String> {
        let mut said = Vec::new();
        for (side, kind, urls, tls) in self.sides() {
            said.extend(tls.idle(side));
            let plain = urls.iter().filter(|url| {
                tls.is_offered() && Address::parse(url).is_ok_and(|address| !address.secure)
            });
            said.extend(plain.map(|url| {
                format!("{kind} url {url} is without TLS, though there are certificates for it")
            }));
        }
        let left_out = self.tls_rules().map(|rules| rules.left_out);
        let left_out = left_out.into_iter().flatten();
        said.extend(left_out.map(|name| format!("cipher suite {name} is not offered here")));
        said
    }
}

/// Nobody without a credential is to reach a member from another machine, unless that is what its owner wants.
pub(super) fn check_reach(
    side: &str,
    kind: &str,
    url: &str,
    address: &Address,
    tls: &Settings,
) -> Result<(), ConfigError> {
    let Place::Port { host, port } = &address.place else {
        return Ok(());
    };
    if address.secure && tls.wants_certificates() {
        return Ok(());
    }
    if resolve(url, host, *port)?
        .iter()
        .all(|at| at.ip().is_loopback())
    {
        return Ok(());
    }
    let why = if address.secure {
        format!(
            "lets in whoever reaches it, since no certificate is asked for; pass --{side}client-cert-auth and \
             --{side}trusted-ca-file, or --insecure if that is what you want"
        )
    } else {
        "is reachable from other machines without TLS; pass --insecure if that is what you want, or listen on 127.0.0.1"
            .to_owned()
    };
    wrong(format!("--listen-{kind}-urls {url} {why}"))
}
