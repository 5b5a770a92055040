//! Who a token stands for. Simple tokens are etcd's: a random text and the index of the log's entry that gave it, known to
//! each member that applied that entry since its start. They end when nobody shows them for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tonic::Status;

use super::jwt::{Claims, Jwt};
use super::Caller;
use crate::config::ConfigError;

/// etcd's `--auth-token-ttl`.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// Characters before the index of a simple token.
const PREFIX_LENGTH: usize = 16;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Simple tokens that are known at a time; then the one that would end first makes room.
const MAX_SIMPLE: usize = 100_000;
/// Signed tokens whose signature needs no second look.
const MAX_VERIFIED: usize = 10_000;

/// What kind of tokens a member gives and takes.
#[derive(Debug, Clone)]
pub enum Kind {
    Simple {
        ttl: Duration,
    },
    Jwt(Arc<Jwt>),
    /// Nobody is ever let in (etcd's `--auth-token ''`).
    None,
}

impl Kind {
    /// What etcd's `--auth-token` says; `ttl_s` is that of simple ones. Reads the keys of signed ones.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn named(given: &str, ttl_s: u64) -> Result<Self, ConfigError> {
        let wrong = |what: String| ConfigError(format!("--auth-token{what}"));
        let mut parts = given.split(',');
        let name = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let pair = part.split_once('=').filter(|(_, v)| !v.contains('='));
            let (key, value) =
                pair.ok_or_else(|| wrong(format!(": '{part}' is not of the form key=value")))?;
            if options.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(wrong(format!(": {key} is given twice")));
            }
        }
        match name {
            "" => Ok(Self::None),
            "simple" => Ok(Self::Simple {
                ttl: match ttl_s {
                    0 => DEFAULT_TTL,
                    seconds => Duration::from_secs(seconds),
                },
            }),
            "jwt" => Ok(Self::Jwt(Arc::new(Jwt::open(&options)?))),
            _ => Err(wrong(format!(" is 'simple' or 'jwt,...', not '{name}'"))),
        }
    }
}

#[derive(Debug)]
struct Simple {
    user: String,
    until: Instant,
}

/// The tokens that one member knows.
#[derive(Debug)]
pub struct Tokens {
    kind: Kind,
    simple: HashMap<String, Simple>,
    verified: HashMap<String, Claims>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new(Kind::Simple { ttl: DEFAULT_TTL })
    }
}

impl Tokens {
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            simple: HashMap::new(),
            verified: HashMap::new(),
        }
    }

    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Gives a user a simple token; the text of it, empty where tokens are of another kind.
    pub(super) fn assign(&mut self, prefix: &str, index: u64, user: &str) -> String {
        let Kind::Simple { ttl } = self.kind else {
            return String::new();
        };
        let token = format!("{prefix}.{index}");
        if self.simple.len() >= MAX_SIMPLE {
            let first = self.simple.iter().min_by_key(|(_, held)| held.until);
            if let Some(first) = first.map(|(token, _)| token.clone()) {
                self.simple.remove(&first);
            }
        }
        let user = user.to_owned();
        let until = Instant::now() + ttl;
        self.simple.insert(token.clone(), Simple { user, until });
        token
    }

    /// Who shows this token, while users and roles are at `revision`; a simple one lives on for its whole time.
    pub fn caller(&mut self, token: &str, revision: u64) -> Option<Caller> {
        match &self.kind {
            Kind::None => None,
            Kind::Simple { ttl } => {
                let now = Instant::now();
                let held = self.simple.get_mut(token).filter(|held| held.until > now)?;
                held.until = now + *ttl;
                Some(Caller {
                    user: held.user.clone(),
                    revision,
                })
            }
            Kind::Jwt(jwt) => {
                let now = unix_now();
                if let Some(known) = self.verified.get(token) {
                    return known.is_valid_at(now).then(|| known.caller());
                }
                let claims = jwt.verify(token, now)?;
                if self.verified.len() >= MAX_VERIFIED {
                    self.verified.clear();
                }
                let caller = claims.caller();
                self.verified.insert(token.to_owned(), claims);
                Some(caller)
            }
        }
    }

    /// The entry that must be applied here before this token can be judged.
    #[must_use]
    pub fn awaits(&self, token: &str) -> Option<u64> {
        match self.kind {
            Kind::Simple { .. } => index_of(token),
            _ => None,
        }
    }

    /// Forgets those that have ended.
    pub fn sweep(&mut self) {
        let now = Instant::now();
        self.simple.retain(|_, held| held.until > now);
    }

    pub(super) fn forget_user(&mut self, user: &str) {
        self.simple.retain(|_, held| held.user != user);
    }

    pub(super) fn clear(&mut self) {
        self.simple.clear();
    }
}

fn index_of(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    index.parse().ok()
}

/// Seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What the next simple token begins with.
///
/// # Errors
/// When the system gives no random numbers.
pub fn fresh_prefix() -> Result<String, Status> {
    let mut prefix = String::with_capacity(PREFIX_LENGTH);
    // A byte past the last whole run of the letters would favour the first ones.
    let fair = 256 - 256 % LETTERS.len();
    while prefix.len() < PREFIX_LENGTH {
        let mut bytes = [0; 2 * PREFIX_LENGTH];
        getrandom::fill(&mut bytes)
            .map_err(|e| Status::internal(format!("the system gives no random number: {e}")))?;
        let letters = bytes.iter().map(|b| usize::from(*b)).filter(|b| *b < fair);
        let letters = letters.map(|b| char::from(LETTERS[b % LETTERS.len()]));
        prefix.extend(letters.take(PREFIX_LENGTH - prefix.len()));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_token_ends_when_nobody_shows_it() {
        let ttl = Duration::from_millis(200);
        let mut tokens = Tokens::new(Kind::Simple { ttl });
        let token = tokens.assign("abc", 7, "alice");
        assert_eq!(token, "abc.7");
        assert_eq!(tokens.awaits(&token), Some(7));
        for _ in 0..4 {
            std::thread::sleep(ttl * 2 / 3);
            let caller = tokens.caller(&token, 5).unwrap();
            assert_eq!((caller.user.as_str(), caller.revision), ("alice", 5));
        }
        std::thread::sleep(ttl + ttl / 4);
        assert_eq!(tokens.caller(&token, 5), None);
        assert_eq!(tokens.simple.len(), 1);
        tokens.sweep();
        assert!(tokens.simple.is_empty());
    }

    #[test]
    fn a_user_and_everybody_can_be_forgotten() {
        let mut tokens = Tokens::default();
        let of_alice = [
            tokens.assign("a", 1, "alice"),
            tokens.assign("b", 1, "alice"),
        ];
        let of_bob = tokens.assign("c", 1, "bob");
        tokens.forget_user("alice");
        assert!(of_alice.iter().all(|t| tokens.caller(t, 1).is_none()));
        assert!(tokens.caller(&of_bob, 1).is_some());
        tokens.clear();
        assert!(tokens.caller(&of_bob, 1).is_none());
    }

    #[test]
    fn prefixes_are_letters_and_differ() {
        let (a, b) = (fresh_prefix().unwrap(), fresh_prefix().unwrap());
        assert_ne!(a, b);
        for prefix in [a, b] {
            assert_eq!(prefix.len(), PREFIX_LENGTH);
            assert!(prefix.bytes().all(|c| c.is_ascii_alphabetic()));
        }
    }
}
