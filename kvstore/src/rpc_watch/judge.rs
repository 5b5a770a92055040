//! Who may watch what: judged when a watch is created, and again whenever users or roles change.

use tonic::Status;

use super::{Session, Watcher};
use crate::auth::{Access, Caller};
use crate::errors::StoreError;
use crate::gateway::code_name;
use crate::pb::etcd::{WatchCreateRequest, WatchResponse};

/// As a status of grpc-go's prints itself, which is what etcd gives as the reason.
fn as_go_prints(status: &Status) -> String {
    let code = code_name(status.code());
    format!("rpc error: code = {code} desc = {}", status.message())
}

impl Session {
    /// Why a watch can't be created, in etcd's words.
    pub(super) fn refusal(
        &self,
        create: &WatchCreateRequest,
        caller: &Result<Option<Caller>, Status>,
    ) -> Result<Option<String>, Status> {
        if create.start_revision < 0 {
            return Ok(Some(StoreError::Compacted.to_string()));
        }
        let permitted = match caller {
            Ok(caller) => {
                let core = self.handle.core()?;
                let auth = core.store()?.auth();
                let (key, end) = (&create.key, &create.range_end);
                auth.permit(caller.as_ref(), Access::Read, key, end)
                    .map_err(Status::from)
            }
            Err(status) => Err(status.clone()),
        };
        Ok(match permitted {
            Err(status) => Some(as_go_prints(&status)),
            Ok(()) => self.contradiction(create),
        })
    }

    /// Ends the watches that are not permitted any more, once users or roles have changed. Etcd lets them go on; here a
    /// watch never shows a key that its user may not read.
    pub(super) async fn judge_again(&mut self) -> Result<(), Status> {
        loop {
            let denied = self.denied()?;
            if denied.is_empty() {
                return Ok(());
            }
            for (watch_id, _) in &denied {
                if let Some(watcher) = self.watchers.remove(watch_id) {
                    self.by_watcher.remove(&watcher.id);
                    self.forget(watcher.id)?;
                }
            }
            for (watch_id, error) in denied {
                let canceled = WatchResponse {
                    header: Some(self.handle.header(0)),
                    watch_id,
                    canceled: true,
                    cancel_reason: as_go_prints(&error.into()),
                    ..Default::default()
                };
                self.send(canceled).await?;
            }
        }
    }

    /// The watches that their users may not have any more, and why; none while nothing has changed.
    fn denied(&mut self) -> Result<Vec<(i64, StoreError)>, Status> {
        let core = self.handle.core()?;
        let auth = core.store()?.auth();
        if auth.epoch() == self.epoch {
            return Ok(Vec::new());
        }
        self.epoch = auth.epoch();
        let judge = |(watch_id, watcher): (&i64, &Watcher)| {
            let (key, end) = (&watcher.key, &watcher.range_end);
            let permitted = auth.permit_watch(watcher.user.as_deref(), key, end);
            permitted.err().map(|error| (*watch_id, error))
        };
        let mut denied: Vec<_> = self.watchers.iter().filter_map(judge).collect();
        denied.sort_unstable_by_key(|(watch_id, _)| *watch_id);
        Ok(denied)
    }
}
