//! What a member's flags say of TLS, and what of it makes no sense.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::SupportedProtocolVersion;
use serde::Deserialize;

use super::{provider, wrong, TlsError};

/// Suites that etcd knows and that are not offered here: no forward secrecy, or broken.
const WEAK: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// The files and rules of one side of a member, its clients' or its peers'.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Shown instead of `cert_file` where this member dials.
    pub client_cert_file: PathBuf,
    pub client_key_file: PathBuf,
    pub client_cert_auth: bool,
    pub trusted_ca_file: PathBuf,
    pub crl_file: PathBuf,
    pub allowed_cns: Vec<String>,
    pub allowed_hostnames: Vec<String>,
    /// Makes a certificate of its own when there is none.
    pub auto: bool,
    /// The name that a peer's certificate must be for, instead of its URL's host.
    pub server_name: String,
    /// Takes a peer's certificate from another address than those that it names.
    pub skip_client_san_verification: bool,
}

impl Settings {
    /// Whether no certificate is given.
    pub fn is_empty(&self) -> bool {
        self.cert_file.as_os_str().is_empty() && self.key_file.as_os_str().is_empty()
    }

    /// Whether there is TLS to be had.
    pub fn is_offered(&self) -> bool {
        !self.is_empty() || self.auto
    }

    /// Whether whoever connects must show a certificate: as in etcd, an authority to check it with suffices.
    pub fn wants_certificates(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca_file.as_os_str().is_empty()
    }

    /// Says what makes no sense; `side` goes before the flags' names.
    pub fn check(&self, side: &str) -> Result<(), TlsError> {
        let empty = |path: &PathBuf| path.as_os_str().is_empty();
        if empty(&self.cert_file) != empty(&self.key_file) {
            return wrong(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                self.key_file.display(),
                self.cert_file.display()
            ));
        }
        if empty(&self.client_cert_file) != empty(&self.client_key_file) {
            return wrong(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {}, cert: {}]",
                self.client_key_file.display(),
                self.client_cert_file.display()
            ));
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return wrong(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={:?}, hostnames={:?})",
                self.allowed_cns, self.allowed_hostnames
            ));
        }
        if self.client_cert_auth && empty(&self.trusted_ca_file) {
            return wrong(format!(
                "--{side}client-cert-auth needs --{side}trusted-ca-file: without it whoever has a certificate of any \
                 public authority would be let in"
            ));
        }
        Ok(())
    }

    /// What is given and has no effect, each as a sentence.
    pub fn idle(&self, side: &str) -> Vec<String> {
        let mut said = Vec::new();
        let names = !self.allowed_cns.is_empty() || !self.allowed_hostnames.is_empty();
        if names && !self.wants_certificates() {
            said.push(format!(
                "--{side}cert-allowed-cn and --{side}cert-allowed-hostname let nobody out without --{side}trusted-ca-file"
            ));
        }
        if self.auto && !self.is_empty() {
            said.push(format!(
                "--{side}auto-tls has no effect, since --{side}cert-file is given"
            ));
        }
        said
    }
}

/// Which suites and versions may be spoken, on both sides.
#[derive(Clone)]
pub struct Rules {
    pub provider: Arc<CryptoProvider>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Suites that were named and are not offered.
    pub left_out: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            provider: Arc::new(provider()),
            versions: vec![&TLS13, &TLS12],
            left_out: Vec::new(),
        }
    }
}

impl Rules {
    /// Reads `--cipher-suites`, `--tls-min-version` and `--tls-max-version`; errors are etcd's.
    pub fn read(suites: &[String], min: &str, max: &str) -> Result<Self, TlsError> {
        let (least, most) = (version(min)?.unwrap_or(2), version(max)?);
        if most.is_some_and(|most| least > most) {
            return wrong(format!(
                "min version ({min}) is greater than max version ({max})"
            ));
        }
        if least == 3 && !suites.is_empty() {
            return wrong("cipher suites cannot be configured when only TLS1.3 is enabled");
        }
        let mut rules = Self::default();
        let most = most.unwrap_or(3);
        rules.versions.retain(|v| {
            let number = if v.version == TLS13.version { 3 } else { 2 };
            (least..=most).contains(&number)
        });
        if !suites.is_empty() {
            rules.choose(suites)?;
        }
        Ok(rules)
    }

    /// As in etcd, the choice is of TLS 1.2's suites: those of 1.3 are always there.
    fn choose(&mut self, names: &[String]) -> Result<(), TlsError> {
        let mut provider = provider();
        let all: Vec<(String, _)> = provider
            .cipher_suites
            .iter()
            .map(|suite| (go_name(&format!("{:?}", suite.suite())), *suite))
            .collect();
        let mut chosen = Vec::new();
        for name in names {
            // Go's older names of two suites lack the hash.
            let full = match name.as_str() {
                short if short.ends_with("_CHACHA20_POLY1305") => format!("{short}_SHA256"),
                other => other.to_owned(),
            };
            match all.iter().find(|(known, _)| *known == full) {
                Some((_, suite)) => chosen.push(*suite),
                None if WEAK.contains(&name.as_str()) => {
                    self.left_out.push(name.clone());
                }
                None => return wrong(format!("unexpected TLS cipher suite {name:?}")),
            }
        }
        let is_13 = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
        if !chosen.iter().any(|suite| !is_13(suite)) {
            let speaks_12 = self.versions.iter().any(|v| v.version == TLS12.version);
            let speaks_13 = self.versions.iter().any(|v| v.version == TLS13.version);
            if speaks_12 && !speaks_13 {
                return wrong(format!(
                    "--cipher-suites {} leaves nothing for TLS1.2: none of them is offered here",
                    names.join(",")
                ));
            }
            self.versions.retain(|v| v.version == TLS13.version);
        }
        provider
            .cipher_suites
            .retain(|suite| is_13(suite) || chosen.iter().any(|one| one.suite() == suite.suite()));
        self.provider = Arc::new(provider);
        Ok(())
    }
}

/// Go calls the suites of TLS 1.3 by shorter names.
fn go_name(name: &str) -> String {
    name.replace("TLS13_", "TLS_")
}

/// 2 or 3 for TLS 1.2 and 1.3, None for an empty name.
fn version(name: &str) -> Result<Option<u8>, TlsError> {
    match name {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(2)),
        "TLS1.3" => Ok(Some(3)),
        _ => wrong(format!(
            "unexpected TLS version {name:?} (must be one of: TLS1.2, TLS1.3)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(suites: &[&str], min: &str, max: &str) -> Result<Rules, TlsError> {
        let suites: Vec<String> = suites.iter().map(ToString::to_string).collect();
        Rules::read(&suites, min, max)
    }

    #[test]
    fn etcds_suites_and_versions_are_known_by_its_names() {
        let rules = read(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], "TLS1.2", "").unwrap();
        let twelve = |s: &&rustls::SupportedCipherSuite| s.tls13().is_none();
        assert_eq!(
            rules.provider.cipher_suites.iter().filter(twelve).count(),
            1
        );
        assert_eq!(rules.provider.cipher_suites.len(), 4);
        for known in [
            "TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ] {
            read(&[known], "", "").unwrap();
        }
        let rules = read(
            &[
                "TLS_RSA_WITH_AES_128_CBC_SHA",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            ],
            "",
            "",
        );
        assert_eq!(rules.unwrap().left_out, ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert_eq!(read(&[], "TLS1.3", "").unwrap().versions.len(), 1);
        assert_eq!(read(&[], "TLS1.2", "TLS1.2").unwrap().versions.len(), 1);
        // None of the named is offered: TLS 1.2 is not spoken at all.
        let rules = read(&["TLS_RSA_WITH_AES_128_CBC_SHA"], "", "").unwrap();
        assert_eq!(rules.versions.len(), 1);
    }

    #[test]
    fn what_etcd_refuses_is_refused_in_its_words() {
        for (suites, min, max, text) in [
            (&["X"][..], "", "", "unexpected TLS cipher suite \"X\""),
            (&[], "TLS1.1", "", "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
            (&[], "TLS1.3", "TLS1.2", "min version (TLS1.3) is greater than max version (TLS1.2)"),
            (
                &["TLS_AES_128_GCM_SHA256"],
                "TLS1.3",
                "",
                "cipher suites cannot be configured when only TLS1.3 is enabled",
            ),
            (
                &["TLS_RSA_WITH_RC4_128_SHA"],
                "",
                "TLS1.2",
                "--cipher-suites TLS_RSA_WITH_RC4_128_SHA leaves nothing for TLS1.2: none of them is offered here",
            ),
        ] {
            assert_eq!(read(suites, min, max).err().unwrap().to_string(), text);
        }
    }

    #[test]
    fn halves_and_contradictions_are_refused() {
        let path = PathBuf::from;
        let some = Settings::default;
        for (settings, text) in [
            (
                Settings { cert_file: path("/c"), ..some() },
                "KeyFile and CertFile must both be present[key: , cert: /c]",
            ),
            (
                Settings { client_key_file: path("/k"), ..some() },
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: /k, cert: ]",
            ),
            (
                Settings {
                    allowed_cns: vec!["a".into()],
                    allowed_hostnames: vec!["b".into()],
                    ..some()
                },
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], hostnames=[\"b\"])",
            ),
            (
                Settings { client_cert_auth: true, ..some() },
                "--peer-client-cert-auth needs --peer-trusted-ca-file: without it whoever has a certificate of any \
                 public authority would be let in",
            ),
        ] {
            assert_eq!(settings.check("peer-").unwrap_err().to_string(), text);
        }
    }
}
