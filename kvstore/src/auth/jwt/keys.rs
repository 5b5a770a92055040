//! Keys of signed tokens, from PEM files as OpenSSL and Go write them.

use base64::prelude::{Engine, BASE64_STANDARD};
use ring::rand::SystemRandom;
use ring::signature::{
    self as s, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding,
    RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{error::Unspecified, hmac};

/// What can be asked for. ES512 is none of them: `ring` has no P-521.
pub const METHODS: [&str; 12] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256",
    "HS384", "HS512",
];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
/// `[1]` in a SEC1 key: its public half.
const PUBLIC_PART: u8 = 0xa1;

#[derive(Clone, Copy)]
enum Kind {
    Rsa(&'static dyn RsaEncoding),
    Ec(&'static EcdsaSigningAlgorithm),
    Ed,
    Hmac(hmac::Algorithm),
}

/// A way to sign.
#[derive(Clone, Copy)]
pub struct Method {
    pub name: &'static str,
    kind: Kind,
    check: Option<&'static dyn VerificationAlgorithm>,
}

impl Method {
    /// The one of this name, if it is one of [`METHODS`].
    pub fn named(name: &str) -> Option<Self> {
        let name = METHODS.into_iter().find(|known| *known == name)?;
        let (kind, check): (Kind, Option<&'static dyn VerificationAlgorithm>) = match name {
            "RS256" => (
                Kind::Rsa(&s::RSA_PKCS1_SHA256),
                Some(&s::RSA_PKCS1_2048_8192_SHA256),
            ),
            "RS384" => (
                Kind::Rsa(&s::RSA_PKCS1_SHA384),
                Some(&s::RSA_PKCS1_2048_8192_SHA384),
            ),
            "RS512" => (
                Kind::Rsa(&s::RSA_PKCS1_SHA512),
                Some(&s::RSA_PKCS1_2048_8192_SHA512),
            ),
            "PS256" => (
                Kind::Rsa(&s::RSA_PSS_SHA256),
                Some(&s::RSA_PSS_2048_8192_SHA256),
            ),
            "PS384" => (
                Kind::Rsa(&s::RSA_PSS_SHA384),
                Some(&s::RSA_PSS_2048_8192_SHA384),
            ),
            "PS512" => (
                Kind::Rsa(&s::RSA_PSS_SHA512),
                Some(&s::RSA_PSS_2048_8192_SHA512),
            ),
            "ES256" => (
                Kind::Ec(&s::ECDSA_P256_SHA256_FIXED_SIGNING),
                Some(&s::ECDSA_P256_SHA256_FIXED),
            ),
            "ES384" => (
                Kind::Ec(&s::ECDSA_P384_SHA384_FIXED_SIGNING),
                Some(&s::ECDSA_P384_SHA384_FIXED),
            ),
            "EdDSA" => (Kind::Ed, Some(&s::ED25519)),
            "HS256" => (Kind::Hmac(hmac::HMAC_SHA256), None),
            "HS384" => (Kind::Hmac(hmac::HMAC_SHA384), None),
            _ => (Kind::Hmac(hmac::HMAC_SHA512), None),
        };
        Some(Self { name, kind, check })
    }
}

/// Makes signatures.
pub enum Signer {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Hmac(hmac::Key),
}

impl Signer {
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        Ok(match self {
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, text, &mut signature)?;
                signature
            }
            Self::Ec(pair) => pair.sign(&random, text)?.as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(text).as_ref().to_vec(),
            Self::Hmac(key) => hmac::sign(key, text).as_ref().to_vec(),
        })
    }

    /// The public half, as the verifier takes it.
    fn public(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair, _) => pair.public().as_ref().to_vec(),
            Self::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Self::Hmac(_) => Vec::new(),
        }
    }
}

/// Checks signatures.
pub enum Verifier {
    Public(UnparsedPublicKey<Vec<u8>>),
    Hmac(hmac::Key),
}

impl Verifier {
    pub fn fits(&self, text: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify(text, signature).is_ok(),
            Self::Hmac(key) => hmac::verify(key, text, signature).is_ok(),
        }
    }
}

/// The keys of a method from the files' contents; etcd's words where it has some.
pub fn open(
    method: Method,
    public: Option<&[u8]>,
    private: Option<&[u8]>,
) -> Result<(Option<Signer>, Verifier), String> {
    let missing = || "auth: missing key data".to_owned();
    let Some(check) = method.check else {
        let Kind::Hmac(algorithm) = method.kind else {
            return Err(missing());
        };
        let key = hmac::Key::new(algorithm, private.ok_or_else(missing)?);
        return Ok((Some(Signer::Hmac(key.clone())), Verifier::Hmac(key)));
    };
    let signer = private
        .map(|pem| signer(method.kind, pem))
        .transpose()
        .map_err(|e| format!("priv-key: {e}"))?;
    let given = public
        .map(public_key)
        .transpose()
        .map_err(|e| format!("pub-key: {e}"))?;
    let own = signer.as_ref().map(Signer::public);
    let key = match (own, given) {
        (Some(own), Some(given)) if own != given => {
            return Err("auth: public and private keys don't match".to_owned());
        }
        (Some(own), _) => own,
        (None, given) => given.ok_or_else(missing)?,
    };
    Ok((signer, Verifier::Public(UnparsedPublicKey::new(check, key))))
}

fn signer(kind: Kind, pem: &[u8]) -> Result<Signer, String> {
    let (label, der) = unwrap_pem(pem)?;
    let rejected = |e: ring::error::KeyRejected| format!("this key can't be used: {e}");
    match (kind, label.as_str()) {
        (Kind::Rsa(encoding), "RSA PRIVATE KEY") => {
            let pair = RsaKeyPair::from_der(&der).map_err(rejected)?;
            Ok(Signer::Rsa(Box::new(pair), encoding))
        }
        (Kind::Rsa(encoding), "PRIVATE KEY") => {
            let pair = RsaKeyPair::from_pkcs8(&der).map_err(rejected)?;
            Ok(Signer::Rsa(Box::new(pair), encoding))
        }
        (Kind::Ec(algorithm), "PRIVATE KEY") => {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, &der, &SystemRandom::new());
            Ok(Signer::Ec(pair.map_err(rejected)?))
        }
        (Kind::Ec(algorithm), "EC PRIVATE KEY") => {
            let (private, public) =
                sec1(&der).ok_or("this is no key of an elliptic curve with its public half")?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                algorithm,
                private,
                public,
                &SystemRandom::new(),
            );
            Ok(Signer::Ec(pair.map_err(rejected)?))
        }
        (Kind::Ed, "PRIVATE KEY") => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
            Ok(Signer::Ed(pair.map_err(rejected)?))
        }
        _ => Err(format!("a {label} is none for this method")),
    }
}

fn public_key(pem: &[u8]) -> Result<Vec<u8>, String> {
    let (label, der) = unwrap_pem(pem)?;
    match label.as_str() {
        "RSA PUBLIC KEY" => Ok(der),
        "PUBLIC KEY" => subject_key(&der)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| "this is no public key".to_owned()),
        _ => Err(format!("a {label} is no public key")),
    }
}

/// The label and content of the first PEM block that is a key; OpenSSL puts an EC key's parameters before it.
fn unwrap_pem(pem: &[u8]) -> Result<(String, Vec<u8>), String> {
    let text = std::str::from_utf8(pem).map_err(|_| "this is no PEM file".to_owned())?;
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let label = line
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let body: String = lines.by_ref().take_while(|line| *line != end).collect();
        if label == "EC PARAMETERS" {
            continue;
        }
        let der = BASE64_STANDARD
            .decode(body)
            .map_err(|e| format!("the {label} is damaged: {e}"))?;
        return Ok((label.to_owned(), der));
    }
    Err("this is no PEM file".to_owned())
}

/// The content of a DER element of this kind, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |sum, byte| {
            sum.checked_mul(256)?.checked_add(usize::from(*byte))
        });
        (length?, rest)
    };
    rest.split_at_checked(length)
}

fn bits(der: &[u8]) -> Option<&[u8]> {
    element(der, BIT_STRING)?.0.strip_prefix(&[0])
}

/// The key within a `SubjectPublicKeyInfo` (RFC 5280).
fn subject_key(der: &[u8]) -> Option<&[u8]> {
    let (inner, _) = element(der, SEQUENCE)?;
    let (_, rest) = element(inner, SEQUENCE)?;
    bits(rest)
}

/// The private and public half of an `ECPrivateKey` (RFC 5915).
fn sec1(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inner, _) = element(der, SEQUENCE)?;
    let (_, rest) = element(inner, INTEGER)?;
    let (private, mut rest) = element(rest, OCTET_STRING)?;
    while let Some(&tag) = rest.first() {
        let (content, after) = element(rest, tag)?;
        if tag == PUBLIC_PART {
            return Some((private, bits(content)?));
        }
        rest = after;
    }
    None
}
