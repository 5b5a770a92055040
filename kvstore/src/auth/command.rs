//! What the log says of users and roles.

use crate::pb::etcd;

/// Who asks, as its token told the member that took the request.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Caller {
    #[prost(string, tag = "1")]
    pub user: String,
    /// The revision of users and roles that it was let in by.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
}

/// A password was right; it is not in here.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Authenticate {
    #[prost(string, tag = "1")]
    pub name: String,
    /// What a simple token begins with; empty where tokens are signed.
    #[prost(string, tag = "2")]
    pub token_prefix: String,
}

/// A change of users and roles. Passwords are hashed before they come here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuthCommand {
    #[prost(oneof = "Action", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub action: Option<Action>,
}

/// Its kinds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Action {
    #[prost(message, tag = "1")]
    Enable(etcd::AuthEnableRequest),
    #[prost(message, tag = "2")]
    Disable(etcd::AuthDisableRequest),
    #[prost(message, tag = "3")]
    Authenticate(Authenticate),
    #[prost(message, tag = "4")]
    UserAdd(etcd::AuthUserAddRequest),
    #[prost(message, tag = "5")]
    UserDelete(etcd::AuthUserDeleteRequest),
    #[prost(message, tag = "6")]
    UserChangePassword(etcd::AuthUserChangePasswordRequest),
    #[prost(message, tag = "7")]
    UserGrantRole(etcd::AuthUserGrantRoleRequest),
    #[prost(message, tag = "8")]
    UserRevokeRole(etcd::AuthUserRevokeRoleRequest),
    #[prost(message, tag = "9")]
    RoleAdd(etcd::AuthRoleAddRequest),
    #[prost(message, tag = "10")]
    RoleDelete(etcd::AuthRoleDeleteRequest),
    #[prost(message, tag = "11")]
    RoleGrantPermission(etcd::AuthRoleGrantPermissionRequest),
    #[prost(message, tag = "12")]
    RoleRevokePermission(etcd::AuthRoleRevokePermissionRequest),
}

impl AuthCommand {
    /// What etcd calls its kind, in figures.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.action {
            Some(Action::Enable(_)) => "AuthEnable",
            Some(Action::Disable(_)) => "AuthDisable",
            Some(Action::Authenticate(_)) => "Authenticate",
            Some(Action::UserAdd(_)) => "AuthUserAdd",
            Some(Action::UserDelete(_)) => "AuthUserDelete",
            Some(Action::UserChangePassword(_)) => "AuthUserChangePassword",
            Some(Action::UserGrantRole(_)) => "AuthUserGrantRole",
            Some(Action::UserRevokeRole(_)) => "AuthUserRevokeRole",
            Some(Action::RoleAdd(_)) => "AuthRoleAdd",
            Some(Action::RoleDelete(_)) => "AuthRoleDelete",
            Some(Action::RoleGrantPermission(_)) => "AuthRoleGrantPermission",
            Some(Action::RoleRevokePermission(_)) => "AuthRoleRevokePermission",
            None => "unknown",
        }
    }
}

impl From<Action> for AuthCommand {
    fn from(action: Action) -> Self {
        Self {
            action: Some(action),
        }
    }
}
