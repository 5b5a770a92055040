//! Users, roles and what they may do with which keys; as in etcd, part of the replicated state.
//!
//! Its parts: `command` what the log says of them, `apply` what that does, `rights` the index of what a user may do,
//! `check` requests against it, `token` who a token stands for, `jwt` signed ones, `password` hashes.
//! Not here: the RPCs (`rpc_auth`), and how a request's token is found (`handle::caller`).

mod apply;
mod check;
mod command;
pub mod jwt;
pub mod password;
mod rights;
#[cfg(test)]
mod tests;
pub mod token;

use std::collections::{BTreeMap, HashMap};

use prost::Message;

use crate::backend::{Batch, Table};
use crate::errors::StoreError;
use crate::etcd_file::{kept_key, AUTH, AUTH_ENABLED, AUTH_REVISION, AUTH_ROLES, AUTH_USERS};
use crate::pb::authpb::{Permission, Role, User};
pub use apply::Authenticated;
pub use command::{Action, AuthCommand, Authenticate, Caller};
use rights::Rights;
pub use rights::{Access, Intervals};
use token::Tokens;

/// The user who must exist while authentication is on, and the role that may do everything.
pub const ROOT: &str = "root";
/// Bytes of a user's or role's name: it is part of a key in the tables.
pub const MAX_NAME_BYTES: usize = 400;

/// Users and roles, and whether anybody asks for them.
#[derive(Debug)]
pub struct Auth {
    enabled: bool,
    /// Counts the changes of users, roles and permissions; who was let in by an older one asks again.
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    rights: HashMap<String, Rights>,
    epoch: u64,
    /// This member's own, not replicated.
    pub tokens: Tokens,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            // Etcd's first, in a store that never had a user.
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            rights: HashMap::new(),
            epoch: 0,
            tokens: Tokens::default(),
        }
    }
}

fn name_of(bytes: &[u8], key: &[u8]) -> Result<String, String> {
    if bytes != key {
        return Err("its record has another name".to_owned());
    }
    if bytes.len() > MAX_NAME_BYTES {
        return Err(format!("its name is longer than {MAX_NAME_BYTES} bytes"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| "its name is not UTF-8".to_owned())
}

impl Auth {
    /// Take a record of one of etcd's buckets in; [`Self::loaded`] follows the last.
    ///
    /// # Errors
    /// A sentence, when it is not etcd's.
    pub fn load(&mut self, bucket: &str, key: &[u8], value: &[u8]) -> Result<(), String> {
        match bucket {
            AUTH if key == AUTH_ENABLED => self.enabled = value == [1],
            AUTH if key == AUTH_REVISION => {
                let number = value.try_into().map(u64::from_be_bytes);
                let revision = number.map_err(|_| "this is no revision".to_owned())?;
                self.revision = revision.max(1);
            }
            AUTH_USERS => {
                let user = User::decode(value).map_err(|e| e.to_string())?;
                self.users.insert(name_of(&user.name, key)?, user);
            }
            AUTH_ROLES => {
                let role = Role::decode(value).map_err(|e| e.to_string())?;
                self.roles.insert(name_of(&role.name, key)?, role);
            }
            _ => {}
        }
        Ok(())
    }

    /// All records are here.
    pub fn loaded(&mut self) {
        let names: Vec<String> = self.users.keys().cloned().collect();
        names.iter().for_each(|name| self.refresh(name));
    }

    /// Whether requests are checked.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Counts the changes of users, roles and permissions.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Differs whenever something may be permitted otherwise than before; of this process's own.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Users' names in order.
    pub fn users(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    /// Roles' names in order.
    pub fn roles(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// # Errors
    /// When there is no such user.
    pub fn user(&self, name: &str) -> Result<&User, StoreError> {
        self.users.get(name).ok_or(StoreError::UserNotFound)
    }

    /// The hash that a user's password must fit.
    ///
    /// # Errors
    /// When authentication is off, or this user can't be let in by a password.
    pub fn password(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        if !self.enabled {
            return Err(StoreError::AuthNotEnabled);
        }
        let user = self.users.get(name).ok_or(StoreError::AuthFailed)?;
        if apply::has_no_password(user) {
            return Err(StoreError::NoPasswordUser);
        }
        Ok(user.password.to_vec())
    }

    /// Who shows this token.
    pub fn caller(&mut self, token: &str) -> Option<Caller> {
        self.tokens.caller(token, self.revision)
    }

    /// A role's permissions.
    ///
    /// # Errors
    /// When there is no such role.
    pub fn permissions(&self, name: &str) -> Result<Vec<Permission>, StoreError> {
        let role = self.roles.get(name).ok_or(StoreError::RoleNotFound)?;
        Ok(if name == ROOT {
            vec![rights::everything()]
        } else {
            role.key_permission.clone()
        })
    }

    /// The caller in whose name this member does what nobody asked for.
    #[must_use]
    pub fn own_caller(&self) -> Option<Caller> {
        self.enabled.then(|| Caller {
            user: ROOT.to_owned(),
            revision: self.revision,
        })
    }

    /// Every record, as etcd's buckets have it; equal on members that applied the same entries.
    pub fn records(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let users = self.users.values().map(User::encode_to_vec);
        let roles = self.roles.values().map(Role::encode_to_vec);
        let head = [
            vec![u8::from(self.enabled)],
            self.revision.to_be_bytes().to_vec(),
        ];
        head.into_iter().chain(users).chain(roles)
    }

    fn refresh(&mut self, name: &str) {
        match self.users.get(name) {
            Some(user) => {
                let rights = Rights::of(user, &self.roles);
                self.rights.insert(name.to_owned(), rights);
            }
            None => {
                self.rights.remove(name);
            }
        }
    }

    fn put_user(&mut self, name: &str, user: User, batch: &mut Batch) {
        let key = kept_key(AUTH_USERS, name.as_bytes());
        batch.put(Table::Meta, key, user.encode_to_vec());
        self.users.insert(name.to_owned(), user);
        self.refresh(name);
    }

    fn put_role(&mut self, name: &str, role: Role, batch: &mut Batch) {
        let key = kept_key(AUTH_ROLES, name.as_bytes());
        batch.put(Table::Meta, key, role.encode_to_vec());
        self.roles.insert(name.to_owned(), role);
        let has = |user: &User| user.roles.iter().any(|role| role == name);
        let holders = self.users.iter().filter(|(_, user)| has(user));
        let holders: Vec<String> = holders.map(|(name, _)| name.clone()).collect();
        holders.iter().for_each(|name| self.refresh(name));
    }

    fn count_up(&mut self, batch: &mut Batch) {
        self.revision += 1;
        let revision = self.revision.to_be_bytes().to_vec();
        batch.put(Table::Meta, kept_key(AUTH, AUTH_REVISION), revision);
    }

    fn set_enabled(&mut self, enabled: bool, batch: &mut Batch) {
        self.enabled = enabled;
        let value = vec![u8::from(enabled)];
        batch.put(Table::Meta, kept_key(AUTH, AUTH_ENABLED), value);
    }
}
