//! The doors that calls come in at, and who is let through with leases.

use tonic::Status;

use super::LeaseService;
use crate::auth::{Access, Caller};
use crate::errors::StoreError;
use crate::handle::Sender;

/// Where calls come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Clients,
    /// Members that pass on what only the leader can do, and have judged it.
    Peers,
}

impl Door {
    /// Refuses at the peers' door what no member passes on: nobody is asked there who he is.
    pub fn refuse_peers(self) -> Result<(), Status> {
        match self {
            Self::Clients => Ok(()),
            Self::Peers => Err(Status::unimplemented("this is for the client port")),
        }
    }
}

impl LeaseService {
    /// The caller, who must be somebody; at the peers' door another member has seen to that.
    pub(super) async fn caller(&self, sender: &Sender) -> Result<Option<Caller>, Status> {
        match self.1 {
            Door::Clients => self.0.require_user(sender).await,
            Door::Peers => Ok(None),
        }
    }

    /// Whether the caller has this access to all keys that go with these leases.
    pub(super) fn permit(
        &self,
        caller: Option<&Caller>,
        access: Access,
        ids: impl IntoIterator<Item = i64>,
    ) -> Result<(), Status> {
        if self.1 == Door::Peers || !self.0.asks_callers() {
            return Ok(());
        }
        let core = self.0.core()?;
        let store = core.store()?;
        for id in ids {
            store.permit_lease(caller, access, id)?;
        }
        Ok(())
    }

    /// Refuses to show what was read before users or roles changed.
    pub(super) fn still_shown_to(&self, caller: Option<&Caller>) -> Result<(), Status> {
        if caller.is_some() && self.0.core()?.store()?.auth().is_stale(caller) {
            return Err(StoreError::AuthOldRevision.into());
        }
        Ok(())
    }

    pub(super) async fn renew(
        &self,
        id: i64,
        forwarded: bool,
        sender: &Sender,
    ) -> Result<i64, Status> {
        let caller = self.caller(sender).await?;
        self.permit(caller.as_ref(), Access::Write, [id])?;
        self.0.renew(id, forwarded).await
    }
}
