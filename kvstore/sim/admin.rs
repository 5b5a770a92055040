//! Who changes the membership, and users and their rights.

use bytes::Bytes;
use kvstore::auth::{Action, AuthCommand};
use kvstore::command::Command;
use kvstore::membership::Change;
use kvstore::pb::authpb::{permission, Permission, UserAddOptions};
use kvstore::pb::etcd::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
};

use super::clients::Asked;
use super::member::Member;
use super::state::described;
use super::users::{ANN, ROLE, ROOT};
use super::world::World;

const MOST_MEMBERS: u64 = 8;
/// One in so many milliseconds something of users changes.
const PAUSE_MS: u64 = 120;

/// How far the founding of users has come, and who was asked for.
#[derive(Debug, Default)]
pub struct Admin {
    step: usize,
    /// The last new member that was asked for, whatever came of it.
    named: u64,
}

/// What the role may be given, in parts that touch each other.
const RANGES: [(&str, &str); 3] = [("w00", "w08"), ("w08", "w99"), ("r", "s")];

fn add_user(name: &str) -> Action {
    Action::UserAdd(AuthUserAddRequest {
        name: name.to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..AuthUserAddRequest::default()
    })
}

fn grant_role(user: &str, role: &str) -> Action {
    Action::UserGrantRole(AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    })
}

fn grant((key, end): (&str, &str)) -> Action {
    let perm = Permission {
        perm_type: permission::Type::Readwrite.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
    };
    Action::RoleGrantPermission(AuthRoleGrantPermissionRequest {
        name: ROLE.to_owned(),
        perm: Some(perm),
    })
}

fn revoke((key, end): (&str, &str)) -> Action {
    Action::RoleRevokePermission(AuthRoleRevokePermissionRequest {
        role: ROLE.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
    })
}

impl World {
    /// Now and then something of users changes; first they are founded.
    pub fn administer(&mut self) {
        if self.calm_since.is_some() || self.rng.below(PAUSE_MS) != 0 {
            return;
        }
        let founding = [
            add_user(ROOT),
            grant_role(ROOT, ROOT),
            add_user(ANN),
            Action::RoleAdd(AuthRoleAddRequest {
                name: ROLE.to_owned(),
            }),
            grant_role(ANN, ROLE),
            grant(RANGES[0]),
            Action::Enable(AuthEnableRequest {}),
        ];
        let range = RANGES[self.rng.below(RANGES.len() as u64) as usize];
        let action = match founding.get(self.admin.step) {
            Some(action) => action.clone(),
            None => match self.rng.below(20) {
                0..=8 => grant(range),
                9..=14 => revoke(range),
                15 => grant_role(ANN, ROLE),
                16 => Action::UserRevokeRole(AuthUserRevokeRoleRequest {
                    name: ANN.to_owned(),
                    role: ROLE.to_owned(),
                }),
                17 => Action::Disable(AuthDisableRequest {}),
                _ => Action::Enable(AuthEnableRequest {}),
            },
        };
        let Some(id) = self.anyone() else { return };
        self.admin.step += 1;
        let command = Command::Auth(AuthCommand::from(action));
        self.propose(id, ROOT, command, Asked::Aside);
        self.turn(id);
    }

    /// Who was added comes, and who missed its own removal hears of it from others, sooner or later.
    pub fn follow_membership(&mut self) {
        let running = self.members.values().filter_map(|m| m.running.as_ref());
        let newest = running.max_by_key(|r| r.state.store.applied().0);
        let Some(membership) = newest.map(|r| r.state.membership.clone()) else {
            return;
        };
        for id in membership.removed {
            if let Some(member) = self.members.get_mut(&id).filter(|m| !m.removed) {
                member.removed = true;
                member.running = None;
            }
        }
        for id in membership.members.into_keys() {
            if !self.members.contains_key(&id) {
                let joiner = Member::joiner(id, self.root());
                self.members.insert(id, joiner);
                self.start(id);
            }
        }
    }

    /// The leader is asked for the next change of the membership that makes sense.
    pub fn change_membership(&mut self) {
        let known = self.members.keys().next_back().copied().unwrap_or(0);
        let next = 1 + known.max(self.admin.named);
        let Some(leader) = self.leader() else { return };
        let running = self
            .members
            .get_mut(&leader)
            .and_then(|m| m.running.as_mut());
        let Some(running) = running else { return };
        let status = running.consensus.status();
        let conf = running.state.conf();
        let ready = |id: u64| {
            let mut progress = status.progress.iter();
            progress.any(|p| p.id == id && p.matched + 5 > status.commit)
        };
        let change = if let Some(&id) = conf.learners.first() {
            if !ready(id) || self.now < self.alone_until {
                return;
            }
            Change::Promote { id }
        } else if conf.voters.len() > 3 && self.rng.percent(60) {
            match self.rng.pick(&conf.voters) {
                Some(id) if id != leader => Change::Remove { id },
                _ => return,
            }
        } else {
            if next > MOST_MEMBERS {
                return;
            }
            Change::Add(described(next, true))
        };
        if running.state.membership.check(&change).is_err() {
            return;
        }
        let hint = running.state.membership.raft_change(&change);
        let context = serde_json::to_vec(&change).unwrap();
        let accepted = running.consensus.propose_conf_change(hint, context.into());
        if accepted.is_err() {
            return;
        }
        self.summary.conf_changes += 1;
        if let Change::Add(_) = change {
            self.admin.named = next;
        }
        self.turn(leader);
    }
}
