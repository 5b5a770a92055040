//! This member's NOSPACE, told to all through the log; and what a new leader makes of alarms whose members are gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::{Broken, Reactor};
use crate::command::Command;
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmRequest, AlarmType};
use crate::report::hex;

/// Before an alarm that could not be told is told again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What is to be told of this member's quota, and the task that tells it.
#[derive(Default)]
pub(super) struct Telling {
    /// Whether the quota was exceeded when last looked at.
    exceeded: Option<bool>,
    /// Whether the alarm should stand; None once it does as it should.
    wanted: Option<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Reactor {
    /// Has the alarm follow the quota: it is raised when that is exceeded, again when a write is refused after somebody
    /// cleared it, and cleared when there is room again. A full disk is this member's own affair, since writes that the
    /// others have room for go on.
    pub(super) fn tell_of_space(&mut self) -> Result<(), Broken> {
        let refused = &self.handle.facts().refused_for_space;
        let refused = refused.swap(false, Ordering::Relaxed);
        let exceeded = self.space.is_over_quota();
        let telling = &mut self.waiting.telling;
        if telling.exceeded != Some(exceeded) || refused && exceeded {
            telling.exceeded = Some(exceeded);
            telling.wanted = Some(exceeded);
        }
        let Some(wanted) = telling.wanted else {
            return Ok(());
        };
        let me = self.me();
        let stands = {
            let core = self.handle.core()?;
            core.store()?.alarms().is_of(me, AlarmType::Nospace)
        };
        if stands == wanted {
            self.waiting.telling.wanted = None;
            return Ok(());
        }
        let busy = self.waiting.telling.task.as_ref();
        if self.handle.has_leader() && busy.is_none_or(|task| task.is_finished()) {
            let action = if wanted {
                AlarmAction::Activate
            } else {
                AlarmAction::Deactivate
            };
            self.waiting.telling.task = Some(self.tell(me, action));
        }
        Ok(())
    }

    /// A leader clears what nobody is left to clear.
    pub(super) fn clear_orphaned_alarms(&self) -> Result<(), Broken> {
        let orphans: Vec<u64> = {
            let core = self.handle.core()?;
            let alarms = core.store()?.alarms().list(AlarmType::Nospace as i32);
            let ids = alarms.map(|alarm| alarm.member_id);
            ids.filter(|id| !core.membership.members.contains_key(id))
                .collect()
        };
        for id in orphans {
            self.tell(id, AlarmAction::Deactivate);
        }
        Ok(())
    }

    fn tell(&self, member_id: u64, action: AlarmAction) -> tokio::task::JoinHandle<()> {
        let request = AlarmRequest {
            action: action.into(),
            member_id,
            alarm: AlarmType::Nospace.into(),
        };
        let handle = self.handle.clone();
        tokio::spawn(async move {
            if let Err(status) = handle.propose_capably(Command::Alarm(request)).await {
                warn!(
                    member_id = %hex(member_id),
                    alarm = "NOSPACE",
                    error = status.message(),
                    "an alarm is not told yet"
                );
                // Not again at once.
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        })
    }
}
