//! Alarms as clients ask for them: agreed on like any change, or read once all that came before is applied.

use std::sync::atomic::Ordering;

use tonic::Status;

use super::Handle;
use crate::apply::Response;
use crate::command::Command;
use crate::errors::StoreError;
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmRequest, AlarmResponse};

impl Handle {
    /// Raises, clears or lists alarms.
    ///
    /// # Errors
    /// `NotCapable` while a member runs a program that knows no alarms.
    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        self.refuse_as_learner()?;
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) => {
                let (done, revision) = self.propose_capably(Command::Alarm(request)).await?;
                let Response::Alarm(mut response) = done else {
                    return Err(Status::internal(
                        "an alarm was answered with something else",
                    ));
                };
                response.header = Some(self.header(revision));
                Ok(response)
            }
            Ok(AlarmAction::Get) => {
                self.linearize().await?;
                let alarms = self.core()?.store()?.alarms().list(request.alarm).collect();
                let header = Some(self.header(0));
                Ok(AlarmResponse { header, alarms })
            }
            Err(_) => Ok(AlarmResponse {
                header: Some(self.header(0)),
                alarms: Vec::new(),
            }),
        }
    }

    /// Agrees on a command that not every program knows.
    ///
    /// # Errors
    /// `NotCapable` while a member runs one that does not.
    pub(crate) async fn propose_capably(
        &self,
        command: Command,
    ) -> Result<(Response, i64), Status> {
        if command.since() > self.core()?.membership.log_version() {
            return Err(StoreError::NotCapable.into());
        }
        self.propose(command).await
    }

    /// A write was refused for want of room: the reactor sees to it that all members know.
    pub(super) fn refused_for_space(&self) {
        self.facts()
            .refused_for_space
            .store(true, Ordering::Relaxed);
        self.nudge().notify_one();
    }
}
