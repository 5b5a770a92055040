//! Who asks: the user that a request's token stands for.
//!
//! Not here: what that user may do (`auth`), which for writes is judged where the log is applied.

use std::sync::atomic::Ordering;

use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::Handle;
use crate::apply::Store;
use crate::auth::Caller;
use crate::errors::StoreError;
use crate::tls::CommonName;

/// Where a token is: etcd's clients put it under the first, its gateway's under the second.
const TOKEN_FIELDS: [&str; 2] = ["token", "authorization"];
/// What a gateway adds, whose certificate is not its clients'.
const GATEWAY_FIELD: &str = "grpcgateway-accept";

/// What came with a request, by which its sender may be known.
#[derive(Debug, Default, Clone)]
pub struct Sender {
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Sender {
    /// A request's sender, and its message.
    pub fn split<T>(request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        let sender = Self {
            metadata,
            extensions,
        };
        (sender, message)
    }

    fn token(&self) -> Option<&str> {
        let mut fields = TOKEN_FIELDS.iter();
        let value = fields.find_map(|field| self.metadata.get(*field))?;
        let text = value.to_str().unwrap_or_default();
        Some(text.strip_prefix("Bearer ").unwrap_or(text))
    }

    /// The name in the certificate of its connection, where that is a user's (`--client-cert-auth`).
    fn common_name(&self) -> Option<&str> {
        let name = self.extensions.get::<CommonName>()?;
        (!self.metadata.contains_key(GATEWAY_FIELD)).then_some(&*name.0)
    }

    #[cfg(test)]
    pub(crate) fn with_token(token: Option<String>) -> Self {
        let mut sender = Self::default();
        if let Some(token) = token {
            let token = token.parse().unwrap();
            sender.metadata.insert(TOKEN_FIELDS[0], token);
        }
        sender
    }

    #[cfg(test)]
    pub(crate) fn with_name(name: &str, by_gateway: bool) -> Self {
        let mut sender = Self::default();
        sender.extensions.insert(CommonName(name.into()));
        if by_gateway {
            sender.metadata.insert(GATEWAY_FIELD, "x".parse().unwrap());
        }
        sender
    }
}

impl Handle {
    /// Whether callers are asked for; read without the state's lock.
    #[must_use]
    pub fn asks_callers(&self) -> bool {
        self.facts().auth_enabled.load(Ordering::Relaxed)
    }

    /// Takes over from the state whether callers are asked for, which may have changed.
    pub fn note_auth(&self, store: &Store) {
        let enabled = store.auth().is_enabled();
        self.facts().auth_enabled.store(enabled, Ordering::Relaxed);
    }

    /// The request's caller: by its token, or else by its certificate. None where nobody is asked for, or nothing tells.
    ///
    /// # Errors
    /// When the token is not, or no longer, valid.
    pub async fn caller(&self, sender: &Sender) -> Result<Option<Caller>, Status> {
        if !self.asks_callers() {
            return Ok(None);
        }
        let Some(token) = sender.token() else {
            return self.caller_named(sender.common_name());
        };
        let awaits = self.core()?.store()?.auth().tokens.awaits(token);
        if let Some(index) = awaits {
            self.await_applied(index).await?;
        }
        if !self.asks_callers() {
            return Ok(None);
        }
        let mut core = self.core()?;
        let caller = core.store_mut()?.auth_mut().caller(token);
        caller.map(Some).ok_or(StoreError::InvalidAuthToken.into())
    }

    fn caller_named(&self, name: Option<&str>) -> Result<Option<Caller>, Status> {
        let Some(name) = name else { return Ok(None) };
        Ok(Some(Caller {
            user: name.to_owned(),
            revision: self.core()?.store()?.auth().revision(),
        }))
    }

    /// The caller, who must be somebody where callers are asked for (etcd's `requireAuthInfo`).
    ///
    /// # Errors
    /// When there is no token, or one that is not valid.
    pub async fn require_user(&self, sender: &Sender) -> Result<Option<Caller>, Status> {
        let caller = self.caller(sender).await?;
        if caller.is_none() && self.asks_callers() {
            return Err(StoreError::UserEmpty.into());
        }
        Ok(caller)
    }

    /// The caller, who must have the root role where callers are asked for (etcd's `isPermitted`).
    ///
    /// # Errors
    /// When it has not.
    pub async fn require_root(&self, sender: &Sender) -> Result<Option<Caller>, Status> {
        let caller = self.caller(sender).await?;
        let mut judged = self.is_root(caller.as_ref());
        // It may have become root where this member has not come to yet.
        if judged.is_err() && caller.is_some() && self.linearize().await.is_ok() {
            judged = self.is_root(caller.as_ref());
        }
        judged.map(|()| caller)
    }

    fn is_root(&self, caller: Option<&Caller>) -> Result<(), Status> {
        if !self.asks_callers() {
            return Ok(());
        }
        Ok(self.core()?.store()?.auth().permit_root(caller)?)
    }

    /// Waits until this entry is applied here: a token may be shown where it is not known yet.
    async fn await_applied(&self, index: u64) -> Result<(), Status> {
        let applied = || self.facts().applied.load(Ordering::Relaxed);
        let wait = async {
            loop {
                let more = self.applied_more().notified();
                tokio::pin!(more);
                // From here on none is missed.
                more.as_mut().enable();
                if applied() >= index {
                    return;
                }
                more.await;
            }
        };
        if applied() < index {
            let limit = self.limits().request_timeout;
            let waited = tokio::time::timeout(limit, wait).await;
            waited.map_err(|_| StoreError::InvalidAuthToken)?;
        }
        Ok(())
    }
}
