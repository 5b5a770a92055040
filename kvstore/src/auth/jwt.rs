//! Signed tokens (JSON web tokens, RFC 7519): who and until when is in them, so that no member has to remember them.
//!
//! `--auth-token jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m`, as in etcd. Signatures are `ring`'s; a token
//! signed by another method than the one that was configured is none.

mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::Caller;
use crate::config::ConfigError;
use crate::errors::StoreError;
use keys::{Method, Signer, Verifier};

/// etcd's, when there is no `ttl`.
const DEFAULT_TTL: Duration = Duration::from_secs(300);

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
}

#[derive(Deserialize)]
struct Signed {
    alg: String,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    username: String,
    /// A number of JSON's.
    revision: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
}

impl Claims {
    /// Whether it holds at this second since 1970.
    #[must_use]
    pub fn is_valid_at(&self, now: u64) -> bool {
        let now = now as f64;
        self.exp.is_none_or(|end| now < end) && self.nbf.is_none_or(|begin| begin <= now)
    }

    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            user: self.username.clone(),
            revision: self.revision as u64,
        }
    }
}

/// How this member signs tokens and checks them.
pub struct Jwt {
    method: Method,
    /// None where only the public key is here: such a member takes tokens and gives none.
    signer: Option<Signer>,
    verifier: Verifier,
    ttl: Duration,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Jwt").field("ttl", &self.ttl).finish()
    }
}

fn wrong(what: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("--auth-token jwt: {what}"))
}

fn file(options: &BTreeMap<String, String>, name: &str) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some(path) = options.get(name).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let read = std::fs::read(path).map_err(|e| wrong(format!("{name} {path}: {e}")))?;
    Ok((!read.is_empty()).then_some(read))
}

impl Jwt {
    /// Reads the keys that the options name.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn open(options: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let name = options.get("sign-method").map_or("", String::as_str);
        let method = Method::named(name).ok_or_else(|| {
            wrong(format!(
                "sign-method '{name}' is none of {}",
                keys::METHODS.join(", ")
            ))
        })?;
        let ttl = match options.get("ttl").filter(|ttl| !ttl.is_empty()) {
            None => DEFAULT_TTL,
            Some(ttl) => duration(ttl)
                .ok_or_else(|| wrong(format!("ttl '{ttl}' is no duration such as 10m or 1h30m")))?,
        };
        let (public, private) = (file(options, "pub-key")?, file(options, "priv-key")?);
        let (signer, verifier) =
            keys::open(method, public.as_deref(), private.as_deref()).map_err(wrong)?;
        Ok(Self {
            method,
            signer,
            verifier,
            ttl,
        })
    }

    /// A token for a user, let in by this revision of users and roles, from this second since 1970 on. Takes a
    /// millisecond or more with RSA.
    ///
    /// # Errors
    /// When this member has only the public key, in etcd's words.
    pub fn sign(&self, user: &str, revision: u64, now: u64) -> Result<String, StoreError> {
        let signer = self.signer.as_ref().ok_or(StoreError::VerifyOnly)?;
        let broken = |e: String| StoreError::Internal(format!("a token can't be signed: {e}"));
        let header = Header {
            alg: self.method.name,
            typ: "JWT",
        };
        // Integers, as etcd writes them.
        let claims = serde_json::json!({
            "exp": now.saturating_add(self.ttl.as_secs()),
            "revision": revision,
            "username": user,
        });
        let encode = |json: Result<Vec<u8>, serde_json::Error>| {
            json.map(|json| BASE64_URL_SAFE_NO_PAD.encode(json))
                .map_err(|e| broken(e.to_string()))
        };
        let text = format!(
            "{}.{}",
            encode(serde_json::to_vec(&header))?,
            encode(serde_json::to_vec(&claims))?
        );
        let signature = signer
            .sign(text.as_bytes())
            .map_err(|e| broken(e.to_string()))?;
        Ok(format!(
            "{text}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature)
        ))
    }

    /// What a token says, if it is signed by our key and holds at this second since 1970.
    #[must_use]
    pub fn verify(&self, token: &str, now: u64) -> Option<Claims> {
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let signed: Signed = serde_json::from_slice(&decode(header)?).ok()?;
        if signed.alg != self.method.name {
            return None;
        }
        if !self.verifier.fits(text.as_bytes(), &decode(signature)?) {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&decode(claims)?).ok()?;
        claims.is_valid_at(now).then_some(claims)
    }
}

/// A duration as Go writes it, such as `5m`, `1h30m` or `1.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let value: f64 = rest[..number].parse().ok()?;
        rest = &rest[number..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += value
            * match &rest[..unit] {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    let whole = Duration::try_from_secs_f64(seconds).ok()?;
    (!whole.is_zero()).then_some(whole)
}
