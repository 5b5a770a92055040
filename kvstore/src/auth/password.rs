//! Passwords: bcrypt, on threads beside the reactor's, few at a time, since a hash takes as long as hundreds of requests.

use base64::prelude::{Engine, BASE64_STANDARD};
use bcrypt::Version;
use tokio::sync::Semaphore;
use tonic::Status;
use tracing::warn;

use crate::errors::StoreError;

/// etcd's `--bcrypt-cost`, and what it may be.
pub const DEFAULT_COST: u32 = 10;
pub const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// The longest password that bcrypt looks at as a whole.
const MAX_BYTES: usize = 72;

/// The place where passwords are hashed and compared.
#[derive(Debug)]
pub struct Passwords {
    cost: u32,
    places: Semaphore,
}

impl Passwords {
    /// A cost that is none of [`COSTS`] is the default one, as in etcd.
    #[must_use]
    pub fn new(cost: u32) -> Self {
        if !COSTS.contains(&cost) {
            warn!(
                cost,
                "--bcrypt-cost is not 4 to 31; {DEFAULT_COST} is taken"
            );
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost: if COSTS.contains(&cost) {
                cost
            } else {
                DEFAULT_COST
            },
            // One core is left for the requests of those that are in.
            places: Semaphore::new(cores.saturating_sub(1).max(1)),
        }
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let _place = self.places.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| StoreError::Stopped.into())
    }

    /// The hash of a password, as the log carries it.
    ///
    /// # Errors
    /// When it is longer than bcrypt takes, in etcd's words.
    pub async fn hash(&self, password: String) -> Result<String, Status> {
        if password.len() > MAX_BYTES {
            return Err(Status::unknown("bcrypt: password length exceeds 72 bytes"));
        }
        let cost = self.cost;
        let hashed = self
            .work(move || bcrypt::hash_with_result(password, cost))
            .await?;
        let hashed = hashed.map_err(|e| Status::internal(format!("bcrypt: {e}")))?;
        Ok(BASE64_STANDARD.encode(hashed.format_for_version(Version::TwoA)))
    }

    /// Whether this is the password of that hash.
    ///
    /// # Errors
    /// When the member stops.
    pub async fn fits(&self, password: String, hash: Vec<u8>) -> Result<bool, Status> {
        self.work(move || {
            let hash = String::from_utf8(hash).unwrap_or_default();
            bcrypt::verify(password, &hash).unwrap_or(false)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_etcds_and_fits_its_password_alone() {
        let passwords = Passwords::new(4);
        let hashed = passwords.hash("secret".into()).await.unwrap();
        let hash = BASE64_STANDARD.decode(hashed).unwrap();
        assert!(hash.starts_with(b"$2a$04$"), "{}", hash.escape_ascii());
        assert!(passwords.fits("secret".into(), hash.clone()).await.unwrap());
        assert!(!passwords.fits("Secret".into(), hash).await.unwrap());
        assert!(!passwords.fits(String::new(), Vec::new()).await.unwrap());
        // Made by Go's bcrypt, as etcd's.
        let theirs = b"$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(passwords
            .fits("allmine".into(), theirs.to_vec())
            .await
            .unwrap());
    }

    #[tokio::test]
    async fn a_password_is_not_cut() {
        let passwords = Passwords::new(4);
        assert!(passwords.hash("x".repeat(72)).await.is_ok());
        let error = passwords.hash("x".repeat(73)).await.unwrap_err();
        assert_eq!(error.message(), "bcrypt: password length exceeds 72 bytes");
    }

    #[test]
    fn an_impossible_cost_is_the_default_one() {
        for (given, taken) in [(3, 10), (4, 4), (12, 12), (31, 31), (32, 10)] {
            assert_eq!(Passwords::new(given).cost, taken);
        }
    }
}
