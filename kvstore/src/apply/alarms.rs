//! Alarms as part of the state: kept with its meta data, so that snapshots carry them.

use super::Store;
use crate::alarm::{encode, Alarms, Turn};
use crate::backend::Table;
use crate::etcd_file::alarm_key;
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};

impl Store {
    /// The alarms that stand.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Carries a request out; what it raised or cleared, or what stands of what was to be raised.
    pub(super) fn alarm(&mut self, request: &AlarmRequest) -> AlarmResponse {
        let alarm = match self.alarms.turn(request) {
            Turn::Raised(alarm) => {
                let key = alarm_key(&encode(&alarm));
                self.batch.put(Table::Meta, key, Vec::new());
                Some(alarm)
            }
            Turn::Cleared(alarm) => {
                self.forget(&alarm);
                Some(alarm)
            }
            Turn::Nothing => {
                let raising = request.action() == AlarmAction::Activate;
                let alarm = AlarmMember {
                    member_id: request.member_id,
                    alarm: request.alarm,
                };
                (raising && self.alarms.list(request.alarm).any(|one| one == alarm))
                    .then_some(alarm)
            }
        };
        AlarmResponse {
            header: None,
            alarms: alarm.into_iter().collect(),
        }
    }

    /// A member that is gone wants for no room.
    pub(crate) fn member_left(&mut self, member_id: u64) {
        let cleared = self.alarms.turn(&AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id,
            alarm: AlarmType::Nospace.into(),
        });
        if let Turn::Cleared(alarm) = cleared {
            self.forget(&alarm);
        }
    }

    fn forget(&mut self, alarm: &AlarmMember) {
        self.batch.delete(Table::Meta, alarm_key(&encode(alarm)));
    }
}
