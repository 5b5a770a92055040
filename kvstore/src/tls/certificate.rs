//! What a certificate says: names, times, purposes. Who vouches for it is not looked at here.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The parts of a certificate that decisions here rest on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Empty where there is none.
    pub common_name: String,
    pub hosts: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Seconds since 1970 from which and until which it is good.
    pub good: (i64, i64),
    pub for_clients: bool,
    pub for_servers: bool,
}

impl Facts {
    /// None where it is no certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|found| &found.value.general_names);
        let purposes = parsed.extended_key_usage().ok()?.map(|found| found.value);
        let for_any = purposes.is_none_or(|purposes| purposes.any);
        let validity = parsed.validity();
        // As in Go, the last of several is the one.
        let common_name = parsed.subject().iter_common_name().last();
        Some(Self {
            common_name: common_name
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            hosts: names.into_iter().flatten().filter_map(host).collect(),
            addresses: names.into_iter().flatten().filter_map(address).collect(),
            good: (
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            ),
            for_clients: for_any || purposes.is_some_and(|purposes| purposes.client_auth),
            for_servers: for_any || purposes.is_some_and(|purposes| purposes.server_auth),
        })
    }

    /// Whether it is good at a time since 1970.
    pub fn is_good_at(&self, now: Duration) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| self.good.0 <= now && now <= self.good.1)
    }

    /// Whether it is for a host name or an address; a name may begin with `*.` for one label.
    pub fn is_for(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let suffix = host.split_once('.').map(|(_, rest)| rest);
        self.hosts.iter().any(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(rest) => suffix == Some(rest),
                None => name == host,
            }
        })
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    }
}

fn address(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(bytes) = name else {
        return None;
    };
    <[u8; 4]>::try_from(*bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_purposes_are_read() {
        let mut params =
            rcgen::CertificateParams::new(vec!["*.a.example".to_owned(), "10.0.0.1".to_owned()])
                .unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "alice");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let facts = Facts::read(certificate.der()).unwrap();
        assert_eq!(facts.common_name, "alice");
        assert!(facts.for_clients && !facts.for_servers);
        for (host, fits) in [
            ("b.a.example", true),
            ("B.A.example.", true),
            ("a.example", false),
            ("c.b.a.example", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
        ] {
            assert_eq!(facts.is_for(host), fits, "{host}");
        }
        assert_eq!(Facts::read(&vec![1, 2, 3].into()), None);
    }
}
