//! Alarms that the cluster agrees on (etcd's NOSPACE and CORRUPT): which member raised which, and what they refuse.
//!
//! Part of the replicated state. Not here: when a member has no room (`space`), or how a corrupt one is found.

use std::collections::BTreeSet;

use prost::Message;

use crate::command::Command;
use crate::errors::StoreError;
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmMember, AlarmRequest, AlarmType};
use crate::txn::grows;

/// The alarms that stand, by kind and member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

/// What a request does to the alarms.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    Raised(AlarmMember),
    Cleared(AlarmMember),
    /// It stood already, or did not.
    Nothing,
}

/// The key of an alarm's record, which is all of it.
#[must_use]
pub fn encode(alarm: &AlarmMember) -> Vec<u8> {
    alarm.encode_to_vec()
}

/// The name of an alarm's kind.
#[must_use]
pub fn name(alarm: &AlarmMember) -> &'static str {
    match AlarmType::try_from(alarm.alarm) {
        Ok(kind) => kind.as_str_name(),
        Err(_) => "UNKNOWN",
    }
}

impl Alarms {
    /// Takes an alarm's record.
    ///
    /// # Errors
    /// When it is none.
    pub fn load(&mut self, key: &[u8]) -> Result<(), prost::DecodeError> {
        let alarm = AlarmMember::decode(key)?;
        self.0.insert((alarm.alarm, alarm.member_id));
        Ok(())
    }

    /// Those of a kind, which etcd need not know, or with 0 all, the kinds in their order.
    pub fn list(&self, kind: i32) -> impl Iterator<Item = AlarmMember> + '_ {
        let wanted = move |alarm: &i32| kind == AlarmType::None as i32 || *alarm == kind;
        let found = self.0.iter().filter(move |(alarm, _)| wanted(alarm));
        found.map(|(alarm, member_id)| AlarmMember {
            member_id: *member_id,
            alarm: *alarm,
        })
    }

    #[must_use]
    pub fn stands(&self, kind: AlarmType) -> bool {
        self.list(kind as i32).next().is_some()
    }

    /// Whether a member raised it.
    #[must_use]
    pub fn is_of(&self, member: u64, kind: AlarmType) -> bool {
        self.0.contains(&(kind as i32, member))
    }

    /// Carries a request out; only raising and clearing change anything.
    pub fn turn(&mut self, request: &AlarmRequest) -> Turn {
        let alarm = AlarmMember {
            member_id: request.member_id,
            alarm: request.alarm,
        };
        let place = (alarm.alarm, alarm.member_id);
        match request.action() {
            AlarmAction::Activate if alarm.alarm != AlarmType::None as i32 => {
                if self.0.insert(place) {
                    Turn::Raised(alarm)
                } else {
                    Turn::Nothing
                }
            }
            AlarmAction::Deactivate if self.0.remove(&place) => Turn::Cleared(alarm),
            _ => Turn::Nothing,
        }
    }

    /// What a command is refused with while an alarm stands.
    #[must_use]
    pub fn refuse(&self, command: &Command) -> Option<StoreError> {
        if self.0.is_empty() || !concerned(command) {
            return None;
        }
        if self.stands(AlarmType::Corrupt) {
            return Some(StoreError::Corrupt);
        }
        (self.stands(AlarmType::Nospace) && grows(command)).then_some(StoreError::NoSpace)
    }
}

/// Alarms are of keys and leases, and of nothing else.
fn concerned(command: &Command) -> bool {
    !matches!(
        command,
        Command::MemberAttributes(_)
            | Command::Auth(_)
            | Command::Alarm(_)
            | Command::Downgrade(_)
            | Command::LeaseCheckpoint(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcd::{DeleteRangeRequest, PutRequest};

    fn request(action: AlarmAction, member_id: u64, alarm: AlarmType) -> AlarmRequest {
        AlarmRequest {
            action: action.into(),
            member_id,
            alarm: alarm.into(),
        }
    }

    fn raise(alarms: &mut Alarms, member: u64, kind: AlarmType) -> Turn {
        alarms.turn(&request(AlarmAction::Activate, member, kind))
    }

    #[test]
    fn an_alarm_stands_from_its_raising_to_its_clearing() {
        let mut alarms = Alarms::default();
        let alarm = |member_id, kind: AlarmType| AlarmMember {
            member_id,
            alarm: kind.into(),
        };
        let seven = alarm(7, AlarmType::Nospace);
        assert_eq!(
            raise(&mut alarms, 7, AlarmType::Nospace),
            Turn::Raised(seven)
        );
        assert_eq!(raise(&mut alarms, 7, AlarmType::Nospace), Turn::Nothing);
        assert_eq!(raise(&mut alarms, 7, AlarmType::None), Turn::Nothing);
        raise(&mut alarms, 5, AlarmType::Corrupt);
        let all: Vec<_> = alarms.list(0).collect();
        assert_eq!(all, [seven, alarm(5, AlarmType::Corrupt)]);
        assert_eq!(alarms.list(AlarmType::Corrupt as i32).count(), 1);
        assert!(alarms.is_of(7, AlarmType::Nospace) && !alarms.is_of(5, AlarmType::Nospace));
        let mut again = Alarms::default();
        all.iter().for_each(|one| again.load(&encode(one)).unwrap());
        assert_eq!(again, alarms);
        let clear = |member, kind| request(AlarmAction::Deactivate, member, kind);
        assert_eq!(alarms.turn(&clear(7, AlarmType::Corrupt)), Turn::Nothing);
        assert_eq!(
            alarms.turn(&clear(7, AlarmType::Nospace)),
            Turn::Cleared(seven)
        );
        assert!(!alarms.stands(AlarmType::Nospace) && alarms.stands(AlarmType::Corrupt));
    }

    #[test]
    fn no_space_refuses_what_grows_and_corruption_all_changes() {
        let put = Command::Put(PutRequest::default());
        let delete = Command::DeleteRange(DeleteRangeRequest::default());
        let clear = Command::Alarm(AlarmRequest::default());
        let mut alarms = Alarms::default();
        assert_eq!(alarms.refuse(&put), None);
        raise(&mut alarms, 1, AlarmType::Nospace);
        assert_eq!(alarms.refuse(&put), Some(StoreError::NoSpace));
        assert_eq!(alarms.refuse(&delete), None);
        raise(&mut alarms, 1, AlarmType::Corrupt);
        for command in [put, delete, Command::Compact(7), Command::LeaseRevoke(7)] {
            assert_eq!(alarms.refuse(&command), Some(StoreError::Corrupt));
        }
        assert_eq!(alarms.refuse(&clear), None);
    }
}
