//! Requests against what their caller may do (etcd's `authApplierV3`).

use super::token::Tokens;
use super::{Access, Action, Auth, Caller};
use crate::apply::Store;
use crate::command::Command;
use crate::errors::StoreError;
use crate::pb::etcd::request_op::Request;
use crate::pb::etcd::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

impl Auth {
    /// # Errors
    /// When the caller is nobody, was let in by older users and roles, or may not do that.
    pub fn permit(
        &self,
        caller: Option<&Caller>,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), StoreError> {
        if !self.enabled {
            return Ok(());
        }
        let named = caller.filter(|caller| caller.revision != 0);
        let caller = named.ok_or(StoreError::UserEmpty)?;
        if caller.revision < self.revision {
            return Err(StoreError::AuthOldRevision);
        }
        let rights = self.rights.get(&caller.user);
        if rights.is_some_and(|rights| rights.allow(access, key, range_end)) {
            Ok(())
        } else {
            Err(StoreError::PermissionDenied)
        }
    }

    /// Whether a watch that this user began may still show such keys.
    ///
    /// # Errors
    /// When the user is nobody, or may not read all of them by now.
    pub fn permit_watch(
        &self,
        user: Option<&str>,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), StoreError> {
        let caller = user.map(|user| Caller {
            user: user.to_owned(),
            revision: self.revision,
        });
        self.permit(caller.as_ref(), Access::Read, key, range_end)
    }

    /// # Errors
    /// When the caller is nobody, is no user any more, or has not the root role.
    pub fn permit_root(&self, caller: Option<&Caller>) -> Result<(), StoreError> {
        if !self.enabled {
            return Ok(());
        }
        let named = caller.filter(|caller| !caller.user.is_empty());
        let caller = named.ok_or(StoreError::UserEmpty)?;
        match self.rights.get(&caller.user) {
            None => Err(StoreError::UserNotFound),
            Some(rights) if !rights.is_root => Err(StoreError::PermissionDenied),
            Some(_) => Ok(()),
        }
    }

    /// Whether users or roles changed since this caller was let in, so that what was read meanwhile must not be shown.
    #[must_use]
    pub fn is_stale(&self, caller: Option<&Caller>) -> bool {
        caller.is_some_and(|caller| caller.revision != 0 && caller.revision != self.revision)
    }
}

impl Store {
    /// Users and roles.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The same, for this member's own tokens.
    pub fn auth_mut(&mut self) -> &mut Auth {
        &mut self.auth
    }

    /// Gives and takes tokens of the same kind; those that were given are not known here.
    pub fn take_tokens_of(&mut self, old: &Self) {
        self.auth.tokens = Tokens::new(old.auth.tokens.kind().clone());
    }

    /// Whether a command of the log may be carried out; judged where all members agree on what came before.
    pub(crate) fn permit(
        &self,
        command: &Command,
        caller: Option<&Caller>,
    ) -> Result<(), StoreError> {
        match command {
            Command::Put(request) => self.permit_put(caller, request),
            Command::DeleteRange(request) => self.permit_delete(caller, request),
            Command::Txn(request) => self.permit_txn(caller, request),
            Command::LeaseRevoke(id) => self.permit_lease(caller, Access::Write, *id),
            Command::Auth(command) => match &command.action {
                Some(Action::Authenticate(_)) | None => Ok(()),
                Some(_) => self.auth.permit_root(caller),
            },
            Command::Compact(_)
            | Command::LeaseGrant(_)
            | Command::MemberAttributes(_)
            | Command::Alarm(_)
            | Command::Downgrade(_)
            | Command::LeaseCheckpoint(_) => Ok(()),
        }
    }

    fn permit_put(&self, caller: Option<&Caller>, request: &PutRequest) -> Result<(), StoreError> {
        let auth = &self.auth;
        auth.permit(caller, Access::Write, &request.key, &[])?;
        // Who could not revoke the lease must not make a key go with it.
        self.permit_lease(caller, Access::Write, request.lease)?;
        if request.prev_kv {
            auth.permit(caller, Access::Read, &request.key, &[])?;
        }
        Ok(())
    }

    fn permit_delete(
        &self,
        caller: Option<&Caller>,
        request: &DeleteRangeRequest,
    ) -> Result<(), StoreError> {
        let (key, end) = (&request.key, &request.range_end);
        self.auth.permit(caller, Access::Write, key, end)?;
        if request.prev_kv {
            self.auth.permit(caller, Access::Read, key, end)?;
        }
        Ok(())
    }

    /// # Errors
    /// When a compare, or an operation of either branch, nested ones too, is not permitted.
    pub fn permit_txn(
        &self,
        caller: Option<&Caller>,
        request: &TxnRequest,
    ) -> Result<(), StoreError> {
        for compare in &request.compare {
            let (key, end) = (&compare.key, &compare.range_end);
            self.auth.permit(caller, Access::Read, key, end)?;
        }
        let mut ops = request.success.iter().chain(&request.failure);
        ops.try_for_each(|op| self.permit_op(caller, op))
    }

    fn permit_op(&self, caller: Option<&Caller>, op: &RequestOp) -> Result<(), StoreError> {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                let (key, end) = (&range.key, &range.range_end);
                self.auth.permit(caller, Access::Read, key, end)
            }
            Some(Request::RequestPut(put)) => self.permit_put(caller, put),
            Some(Request::RequestDeleteRange(delete)) => self.permit_delete(caller, delete),
            Some(Request::RequestTxn(txn)) => self.permit_txn(caller, txn),
            None => Ok(()),
        }
    }

    /// # Errors
    /// When a key is attached to the lease for which the caller has not this access.
    pub fn permit_lease(
        &self,
        caller: Option<&Caller>,
        access: Access,
        id: i64,
    ) -> Result<(), StoreError> {
        let Some(lease) = self.leases.get(&id) else {
            return Ok(());
        };
        if self.auth.permit_root(caller).is_ok() {
            return Ok(());
        }
        let mut keys = lease.keys.iter();
        keys.try_for_each(|key| self.auth.permit(caller, access, key, &[]))
    }
}
