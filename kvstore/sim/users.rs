//! Users and roles, naively: what the real ones are held against.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kvstore::auth::{Action, Caller};

pub const ROOT: &str = "root";
/// The user whose rights come and go.
pub const ANN: &str = "ann";
/// Her role.
pub const ROLE: &str = "keys";

type Range = (Bytes, Bytes);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    pub enabled: bool,
    /// How often they changed.
    pub changes: u64,
    roles_of: BTreeMap<String, BTreeSet<String>>,
    ranges_of: BTreeMap<String, BTreeSet<Range>>,
}

impl Users {
    /// Whether somebody who was let in at `changes` may read and write a range. All permissions here are for both.
    pub fn permit(&self, caller: Option<&Caller>, key: &Bytes, end: &Bytes) -> bool {
        let known = |c: &&Caller| c.revision == self.changes + 1;
        !self.enabled
            || caller
                .filter(known)
                .is_some_and(|c| self.may(&c.user, key, end))
    }

    /// Whether a user may see a range now.
    pub fn may_watch(&self, user: Option<&str>, key: &Bytes, end: &Bytes) -> bool {
        !self.enabled || user.is_some_and(|user| self.may(user, key, end))
    }

    fn may(&self, user: &str, key: &Bytes, end: &Bytes) -> bool {
        let Some(roles) = self.roles_of.get(user) else {
            return false;
        };
        if roles.contains(ROOT) {
            return true;
        }
        let held = roles.iter().filter_map(|role| self.ranges_of.get(role));
        let mut held: Vec<&Range> = held.flatten().collect();
        held.sort();
        if end.is_empty() {
            return held.iter().any(|(from, to)| from <= key && key < to);
        }
        if end.as_ref() == [0] {
            return false;
        }
        let mut reached = key.clone();
        for (from, to) in held {
            if *from <= reached && *to > reached {
                reached = to.clone();
            }
        }
        reached >= *end
    }

    /// Whether somebody may do everything, whenever that one was let in.
    pub fn is_root(&self, caller: Option<&Caller>) -> bool {
        let roles = caller.and_then(|c| self.roles_of.get(&c.user));
        roles.is_some_and(|roles| roles.contains(ROOT))
    }

    /// Carries an action out; whether it was possible.
    pub fn apply(&mut self, action: &Action, caller: Option<&Caller>) -> bool {
        if self.enabled && !self.is_root(caller) {
            return false;
        }
        match self.change(action) {
            None => return false,
            Some(counts) => self.changes += u64::from(counts),
        }
        true
    }

    /// None where it is refused; else whether it counts as a change.
    fn change(&mut self, action: &Action) -> Option<bool> {
        match action {
            Action::Enable(_) => {
                let root = self.roles_of.get(ROOT)?;
                self.enabled = root.contains(ROOT).then_some(true)?;
                Some(false)
            }
            Action::Disable(_) => Some(std::mem::take(&mut self.enabled)),
            Action::UserAdd(r) => {
                let fresh = !self.roles_of.contains_key(&r.name);
                self.roles_of.entry(r.name.clone()).or_default();
                fresh.then_some(true)
            }
            Action::UserGrantRole(r) => {
                let known = r.role == ROOT || self.ranges_of.contains_key(&r.role);
                let roles = self.roles_of.get_mut(&r.user).filter(|_| known)?;
                Some(roles.insert(r.role.clone()))
            }
            Action::UserRevokeRole(r) => {
                let removed = self.roles_of.get_mut(&r.name)?.remove(&r.role);
                removed.then_some(true)
            }
            Action::RoleAdd(r) => {
                let fresh = !self.ranges_of.contains_key(&r.name);
                self.ranges_of.entry(r.name.clone()).or_default();
                fresh.then_some(true)
            }
            Action::RoleGrantPermission(r) => {
                let perm = r.perm.as_ref()?;
                let range = (perm.key.clone(), perm.range_end.clone());
                self.ranges_of.get_mut(&r.name)?.insert(range);
                Some(true)
            }
            Action::RoleRevokePermission(r) => {
                let range = (r.key.clone(), r.range_end.clone());
                self.ranges_of
                    .get_mut(&r.role)?
                    .remove(&range)
                    .then_some(true)
            }
            other => unreachable!("the simulation does no {other:?}"),
        }
    }
}
