//! Whether the other side's certificate is good: its chain, its revocation, and which names are let in.
//!
//! Two things are as in Go and not as in the library: a certificate that stands itself among the trusted ones is good
//! though it is an authority's (what `openssl req -x509` makes), and names may be restricted.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{
    verify_tls12_signature, verify_tls13_signature, CryptoProvider, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::certificate::Facts;
use super::files::Authorities;
use super::TlsError;

type Revocations = Vec<CertificateRevocationListDer<'static>>;

fn unusable(error: VerifierBuilderError) -> TlsError {
    TlsError(match error {
        VerifierBuilderError::InvalidCrl(error) => {
            format!("the certificate revocation list can't be used: {error:?}")
        }
        error => error.to_string(),
    })
}

fn refused<T>(error: CertificateError) -> Result<T, Error> {
    Err(Error::InvalidCertificate(error))
}

/// Which names a certificate must have one of; any when there are none.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub common: Vec<String>,
    pub hosts: Vec<String>,
}

impl Names {
    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.common.is_empty() && self.hosts.is_empty() {
            return Ok(());
        }
        let Some(facts) = Facts::read(certificate) else {
            return refused(CertificateError::BadEncoding);
        };
        if self.common.contains(&facts.common_name) || self.hosts.iter().any(|h| facts.is_for(h)) {
            return Ok(());
        }
        Err(Error::General(
            "client certificate authentication failed".into(),
        ))
    }
}

/// A trusted certificate that the library refuses since it is an authority's too: whether it is good at a time.
fn is_trusted_itself(
    error: &Error,
    trusted: &[CertificateDer<'_>],
    shown: &CertificateDer<'_>,
    now: UnixTime,
) -> Option<Result<Facts, Error>> {
    let odd = matches!(error, Error::InvalidCertificate(CertificateError::Other(_)));
    if !odd || !trusted.contains(shown) {
        return None;
    }
    let facts = Facts::read(shown)?;
    if facts.is_good_at(std::time::Duration::from_secs(now.as_secs())) {
        return Some(Ok(facts));
    }
    Some(refused(CertificateError::Expired))
}

/// Judges those that connect.
#[derive(Debug)]
pub(super) struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    names: Names,
}

impl Clients {
    pub fn new(
        authorities: Authorities,
        revoked: Revocations,
        names: Names,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let inner = WebPkiClientVerifier::builder_with_provider(
            Arc::new(authorities.roots),
            provider.clone(),
        )
        .with_crls(revoked)
        .allow_unknown_revocation_status()
        .build()
        .map_err(unusable)?;
        Ok(Self {
            inner,
            trusted: authorities.certificates,
            names,
        })
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self
            .inner
            .verify_client_cert(end_entity, intermediates, now);
        if let Err(error) = judged {
            match is_trusted_itself(&error, &self.trusted, end_entity, now) {
                Some(Ok(facts)) if facts.for_clients => {}
                Some(Ok(_)) => return refused(CertificateError::InvalidPurpose),
                Some(Err(error)) => return Err(error),
                None => return Err(error),
            }
        }
        self.names.admit(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Judges those that are dialed.
#[derive(Debug)]
pub(super) struct Servers {
    /// None where whoever answers is believed.
    inner: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    names: Names,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Servers {
    pub fn new(
        authorities: Authorities,
        revoked: Revocations,
        names: Names,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let judge = |roots: RootCertStore| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .with_crls(revoked)
                .allow_unknown_revocation_status()
                .build()
        };
        // Without any authority nobody is believed, which the library would call a mistake.
        let inner = match judge(authorities.roots) {
            Err(VerifierBuilderError::NoRootAnchors) => {
                return Err(TlsError(
                    "this system trusts no authority: name the one that signed the servers' certificates (--cacert)"
                        .into(),
                ))
            }
            other => other.map_err(unusable)?,
        };
        Ok(Self {
            inner: Some(inner),
            trusted: authorities.certificates,
            names,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Believes whoever answers.
    pub fn credulous(provider: &CryptoProvider) -> Self {
        Self {
            inner: None,
            trusted: Vec::new(),
            names: Names::default(),
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        let judged =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(error) = judged {
            match is_trusted_itself(&error, &self.trusted, end_entity, now) {
                Some(Ok(facts)) if !facts.is_for(&server_name.to_str()) => {
                    return refused(CertificateError::NotValidForName);
                }
                Some(Ok(facts)) if facts.for_servers => {}
                Some(Ok(_)) => return refused(CertificateError::InvalidPurpose),
                Some(Err(error)) => return Err(error),
                None => return Err(error),
            }
        }
        self.names.admit(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
