//! The downgrade job: looked at once all that came before is applied, begun and ended through the log.

use tonic::Status;

use super::Handle;
use crate::command::{Command, DowngradeTo};
use crate::downgrade::Release;
use crate::errors::StoreError;
use crate::pb::etcd::downgrade_request::DowngradeAction;
use crate::pb::etcd::{DowngradeRequest, DowngradeResponse};

impl Handle {
    /// Validates, begins or ends a downgrade; the answer tells the cluster's release before.
    ///
    /// # Errors
    /// etcd's.
    pub async fn downgrade(&self, request: DowngradeRequest) -> Result<DowngradeResponse, Status> {
        self.refuse_as_learner()?;
        let action = DowngradeAction::try_from(request.action);
        let action = action.map_err(|_| StoreError::UnknownMethod)?;
        let target = match action {
            DowngradeAction::Cancel => None,
            _ => Some(Release::parse(&request.version)?),
        };
        self.linearize().await?;
        let now = self.core()?.store()?.downgrade();
        if let Some(target) = target {
            now.check(target)?;
        }
        let begins = action == DowngradeAction::Enable;
        let ends = action == DowngradeAction::Cancel && now.0.is_some();
        if begins || ends {
            let version = target.map(Release::version).unwrap_or_default();
            let command = Command::Downgrade(DowngradeTo { version });
            self.propose_capably(command).await?;
        }
        Ok(DowngradeResponse {
            header: Some(self.header(0)),
            version: now.cluster().to_string(),
        })
    }
}
