//! Changes of users and roles, as etcd's `authStore` makes them.

use base64::prelude::{Engine, BASE64_STANDARD};
use bytes::Bytes;

use super::{rights, Action, Auth, Authenticate, MAX_NAME_BYTES, ROOT};
use crate::backend::{Batch, Table};
use crate::errors::StoreError;
use crate::etcd_file::{kept_key, AUTH_ROLES, AUTH_USERS};
use crate::pb::authpb::{Permission, Role, User, UserAddOptions};
use crate::pb::etcd::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
};
use crate::planted::{planted, Bug};

/// What somebody has who gave the right password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// Empty where tokens are signed, which the member does that was asked.
    pub token: String,
    /// Of users and roles at that time.
    pub revision: u64,
}

type Done = Result<(), StoreError>;

fn password_of(hashed: &str) -> Result<Bytes, StoreError> {
    let decoded = BASE64_STANDARD.decode(hashed);
    decoded
        .map(Bytes::from)
        .map_err(|_| StoreError::NoPasswordUser)
}

fn check_name(name: &str) -> Done {
    if name.len() > MAX_NAME_BYTES {
        return Err(StoreError::NameTooLong);
    }
    Ok(())
}

impl Auth {
    /// Carries one action of the log out; `index` is its entry's. Whether it is permitted was judged before.
    ///
    /// # Errors
    /// etcd's; nothing has changed then.
    pub fn apply(
        &mut self,
        action: Action,
        index: u64,
        batch: &mut Batch,
    ) -> Result<Option<Authenticated>, StoreError> {
        let seen = !matches!(action, Action::RoleRevokePermission(_));
        if seen || !planted(Bug::WatchNotJudgedAgain) {
            self.epoch += 1;
        }
        match action {
            Action::Authenticate(request) => {
                return self.authenticated(&request, index).map(Some);
            }
            Action::Enable(_) => self.enable(batch),
            Action::Disable(_) => {
                self.disable(batch);
                Ok(())
            }
            Action::UserAdd(request) => self.add_user(request, batch),
            Action::UserDelete(request) => self.delete_user(&request.name, batch),
            Action::UserChangePassword(request) => self.change_password(&request, batch),
            Action::UserGrantRole(request) => self.grant_role(request, batch),
            Action::UserRevokeRole(request) => self.revoke_role(&request, batch),
            Action::RoleAdd(request) => self.add_role(&request.name, batch),
            Action::RoleDelete(request) => self.delete_role(&request.role, batch),
            Action::RoleGrantPermission(request) => self.grant_permission(request, batch),
            Action::RoleRevokePermission(request) => self.revoke_permission(&request, batch),
        }
        .map(|()| None)
    }

    fn authenticated(
        &mut self,
        request: &Authenticate,
        index: u64,
    ) -> Result<Authenticated, StoreError> {
        if !self.enabled {
            return Err(StoreError::AuthNotEnabled);
        }
        let user = self.users.get(&request.name);
        if user.is_none_or(has_no_password) {
            return Err(StoreError::AuthFailed);
        }
        Ok(Authenticated {
            token: self
                .tokens
                .assign(&request.token_prefix, index, &request.name),
            revision: self.revision,
        })
    }

    fn enable(&mut self, batch: &mut Batch) -> Done {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(StoreError::RootUserNotExist)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(StoreError::RootRoleNotExist);
        }
        self.set_enabled(true, batch);
        Ok(())
    }

    fn disable(&mut self, batch: &mut Batch) {
        if self.enabled {
            self.set_enabled(false, batch);
            self.count_up(batch);
            self.tokens.clear();
        }
    }

    fn add_user(&mut self, request: AuthUserAddRequest, batch: &mut Batch) -> Done {
        let name = request.name;
        if name.is_empty() {
            return Err(StoreError::UserEmpty);
        }
        check_name(&name)?;
        if self.users.contains_key(&name) {
            return Err(StoreError::UserExists);
        }
        let options = request.options.unwrap_or_default();
        let password = if options.no_password {
            Bytes::new()
        } else {
            password_of(&request.hashed_password)?
        };
        let user = User {
            name: Bytes::copy_from_slice(name.as_bytes()),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        self.put_user(&name, user, batch);
        self.count_up(batch);
        Ok(())
    }

    fn delete_user(&mut self, name: &str, batch: &mut Batch) -> Done {
        if self.enabled && name == ROOT {
            return Err(StoreError::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(StoreError::UserNotFound)?;
        batch.delete(Table::Meta, kept_key(AUTH_USERS, name.as_bytes()));
        self.refresh(name);
        self.tokens.forget_user(name);
        self.count_up(batch);
        Ok(())
    }

    fn change_password(
        &mut self,
        request: &AuthUserChangePasswordRequest,
        batch: &mut Batch,
    ) -> Done {
        let mut user = self.user(&request.name)?.clone();
        user.password = if has_no_password(&user) {
            Bytes::new()
        } else {
            password_of(&request.hashed_password)?
        };
        self.put_user(&request.name, user, batch);
        self.tokens.forget_user(&request.name);
        self.count_up(batch);
        Ok(())
    }

    fn grant_role(&mut self, request: AuthUserGrantRoleRequest, batch: &mut Batch) -> Done {
        let mut user = self.user(&request.user)?.clone();
        if request.role != ROOT && !self.roles.contains_key(&request.role) {
            return Err(StoreError::RoleNotFound);
        }
        if user.roles.contains(&request.role) {
            return Ok(());
        }
        user.roles.push(request.role);
        user.roles.sort();
        self.put_user(&request.user, user, batch);
        self.count_up(batch);
        Ok(())
    }

    fn revoke_role(&mut self, request: &AuthUserRevokeRoleRequest, batch: &mut Batch) -> Done {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(StoreError::InvalidAuthMgmt);
        }
        let mut user = self.user(&request.name)?.clone();
        if !user.roles.contains(&request.role) {
            return Err(StoreError::RoleNotGranted);
        }
        user.roles.retain(|role| *role != request.role);
        self.put_user(&request.name, user, batch);
        self.count_up(batch);
        Ok(())
    }

    fn add_role(&mut self, name: &str, batch: &mut Batch) -> Done {
        if name.is_empty() {
            return Err(StoreError::RoleEmpty);
        }
        check_name(name)?;
        if self.roles.contains_key(name) {
            return Err(StoreError::RoleExists);
        }
        let role = Role {
            name: Bytes::copy_from_slice(name.as_bytes()),
            key_permission: Vec::new(),
        };
        self.put_role(name, role, batch);
        self.count_up(batch);
        Ok(())
    }

    fn delete_role(&mut self, name: &str, batch: &mut Batch) -> Done {
        if self.enabled && name == ROOT {
            return Err(StoreError::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(StoreError::RoleNotFound)?;
        batch.delete(Table::Meta, kept_key(AUTH_ROLES, name.as_bytes()));
        let has = |user: &User| user.roles.iter().any(|role| role == name);
        let holders = self.users.iter().filter(|(_, user)| has(user));
        let holders: Vec<_> = holders.map(|(n, user)| (n.clone(), user.clone())).collect();
        for (holder, mut user) in holders {
            user.roles.retain(|role| role != name);
            self.put_user(&holder, user, batch);
        }
        self.count_up(batch);
        Ok(())
    }

    fn grant_permission(
        &mut self,
        request: AuthRoleGrantPermissionRequest,
        batch: &mut Batch,
    ) -> Done {
        let permission = request.perm.ok_or(StoreError::PermissionNotGiven)?;
        if !rights::is_range(&permission.key, &permission.range_end) {
            return Err(StoreError::InvalidAuthMgmt);
        }
        let role = self.roles.get(&request.name);
        let mut role = role.ok_or(StoreError::RoleNotFound)?.clone();
        let same =
            |p: &&mut Permission| p.key == permission.key && p.range_end == permission.range_end;
        match role.key_permission.iter_mut().find(same) {
            Some(held) => held.perm_type = permission.perm_type,
            None => {
                role.key_permission.push(permission);
                role.key_permission.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(&request.name, role, batch);
        self.count_up(batch);
        Ok(())
    }

    fn revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
        batch: &mut Batch,
    ) -> Done {
        let role = self.roles.get(&request.role);
        let mut role = role.ok_or(StoreError::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission
            .retain(|p| p.key != request.key || p.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(StoreError::PermissionNotGranted);
        }
        self.put_role(&request.role, role, batch);
        self.count_up(batch);
        Ok(())
    }
}

pub(super) fn has_no_password(user: &User) -> bool {
    user.options == Some(UserAddOptions { no_password: true })
}
