//! Auth: users, roles and tokens.
//!
//! Not here: what a change does (`auth`), and what users may do elsewhere (each service asks for its callers).

use tonic::{Request, Response, Status};

use crate::apply::Response as Did;
use crate::auth::token::{fresh_prefix, unix_now, Kind};
use crate::auth::{Action, Auth, Authenticate, Authenticated, Caller};
use crate::command::Command;
use crate::errors::StoreError;
use crate::handle::{Handle, Sender};
use crate::pb::etcd::*;
use crate::rpc_data::finish;
use tracing::warn;

/// The Auth service of one member.
#[derive(Clone)]
pub struct AuthService(pub Handle);

type Answer<T> = Result<Response<T>, Status>;

impl AuthService {
    /// Agrees on a change; the header of its answer.
    async fn change(
        &self,
        sender: &Sender,
        action: Action,
    ) -> Result<Option<ResponseHeader>, Status> {
        let caller = self.0.caller(sender).await?;
        let command = Command::Auth(action.into());
        let (_, revision) = self.0.write(command, caller).await?;
        Ok(Some(self.0.header(revision)))
    }

    /// Reads users and roles as they are now, for a caller who may.
    async fn read<T>(
        &self,
        sender: &Sender,
        look: impl FnOnce(&Auth, Option<&Caller>) -> Result<T, StoreError>,
    ) -> Result<(Option<ResponseHeader>, T), Status> {
        self.0.linearize().await?;
        let caller = self.0.caller(sender).await?;
        let (found, revision) = {
            let core = self.0.core()?;
            let store = core.store()?;
            (look(store.auth(), caller.as_ref())?, store.revision())
        };
        Ok((Some(self.0.header(revision)), found))
    }

    async fn authenticated(&self, request: AuthenticateRequest) -> Result<String, Status> {
        let AuthenticateRequest { name, password } = request;
        self.0.linearize().await?;
        loop {
            let (hash, revision) = self.password_of(&name)?;
            if !self.0.passwords().fits(password.clone(), hash).await? {
                warn!(user = name, "a wrong password was given");
                return Err(StoreError::AuthFailed.into());
            }
            let given = self.let_in(&name).await?;
            if given.revision == revision {
                return self.token(name, given).await;
            }
            // The password may be another by now.
        }
    }

    fn password_of(&self, name: &str) -> Result<(Vec<u8>, u64), Status> {
        let core = self.0.core()?;
        let auth = core.store()?.auth();
        Ok((auth.password(name)?, auth.revision()))
    }

    async fn let_in(&self, name: &str) -> Result<Authenticated, Status> {
        let simple = matches!(
            self.0.core()?.store()?.auth().tokens.kind(),
            Kind::Simple { .. }
        );
        let action = Action::Authenticate(Authenticate {
            name: name.to_owned(),
            token_prefix: if simple {
                fresh_prefix()?
            } else {
                String::new()
            },
        });
        match self.0.write(Command::Auth(action.into()), None).await? {
            (Did::Auth(Some(given)), _) => Ok(given),
            _ => Err(Status::internal("nobody was let in")),
        }
    }

    async fn token(&self, name: String, given: Authenticated) -> Result<String, Status> {
        let kind = self.0.core()?.store()?.auth().tokens.kind().clone();
        match kind {
            Kind::Simple { .. } => Ok(given.token),
            Kind::None => Err(StoreError::AuthFailed.into()),
            Kind::Jwt(jwt) => {
                let sign = move || jwt.sign(&name, given.revision, unix_now());
                let signed = tokio::task::spawn_blocking(sign).await;
                Ok(signed.map_err(|_| StoreError::Stopped)??)
            }
        }
    }
}

#[tonic::async_trait]
impl auth_server::Auth for AuthService {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Answer<AuthEnableResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::Enable(request)).await;
        let result = result.map(|header| AuthEnableResponse { header });
        finish(&self.0, "Auth", "AuthEnable", result)
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Answer<AuthDisableResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::Disable(request)).await;
        let result = result.map(|header| AuthDisableResponse { header });
        finish(&self.0, "Auth", "AuthDisable", result)
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Answer<AuthStatusResponse> {
        let look = |auth: &Auth, _: Option<&Caller>| Ok((auth.is_enabled(), auth.revision()));
        let result = self.read(&Sender::split(request).0, look).await;
        let result = result.map(|(header, (enabled, auth_revision))| AuthStatusResponse {
            header,
            enabled,
            auth_revision,
        });
        finish(&self.0, "Auth", "AuthStatus", result)
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Answer<AuthenticateResponse> {
        let result = self.authenticated(request.into_inner()).await;
        let result = result.map(|token| AuthenticateResponse {
            header: Some(self.0.header(0)),
            token,
        });
        finish(&self.0, "Auth", "Authenticate", result)
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Answer<AuthUserAddResponse> {
        let (sender, mut request) = Sender::split(request);
        let result = async {
            // Before the password is hashed, which is much work.
            self.0.require_root(&sender).await?;
            let password = std::mem::take(&mut request.password);
            if !request.options.is_some_and(|options| options.no_password) {
                request.hashed_password = self.0.passwords().hash(password).await?;
            }
            let header = self.change(&sender, Action::UserAdd(request)).await?;
            Ok(AuthUserAddResponse { header })
        };
        finish(&self.0, "Auth", "UserAdd", result.await)
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Answer<AuthUserGetResponse> {
        let (sender, AuthUserGetRequest { name }) = Sender::split(request);
        let look = |auth: &Auth, caller: Option<&Caller>| {
            let is_own = caller.is_some_and(|caller| caller.user == name);
            auth.permit_root(caller)
                .or_else(|error| if is_own { Ok(()) } else { Err(error) })?;
            Ok(auth.user(&name)?.roles.clone())
        };
        let result = self.read(&sender, look).await;
        let result = result.map(|(header, roles)| AuthUserGetResponse { header, roles });
        finish(&self.0, "Auth", "UserGet", result)
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Answer<AuthUserListResponse> {
        let look = |auth: &Auth, caller: Option<&Caller>| {
            auth.permit_root(caller)?;
            Ok(auth.users().cloned().collect())
        };
        let result = self.read(&Sender::split(request).0, look).await;
        let result = result.map(|(header, users)| AuthUserListResponse { header, users });
        finish(&self.0, "Auth", "UserList", result)
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Answer<AuthUserDeleteResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::UserDelete(request)).await;
        let result = result.map(|header| AuthUserDeleteResponse { header });
        finish(&self.0, "Auth", "UserDelete", result)
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Answer<AuthUserChangePasswordResponse> {
        let (sender, mut request) = Sender::split(request);
        let result = async {
            self.0.require_root(&sender).await?;
            let password = std::mem::take(&mut request.password);
            if !password.is_empty() {
                request.hashed_password = self.0.passwords().hash(password).await?;
            }
            let action = Action::UserChangePassword(request);
            let header = self.change(&sender, action).await?;
            Ok(AuthUserChangePasswordResponse { header })
        };
        finish(&self.0, "Auth", "UserChangePassword", result.await)
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Answer<AuthUserGrantRoleResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::UserGrantRole(request)).await;
        let result = result.map(|header| AuthUserGrantRoleResponse { header });
        finish(&self.0, "Auth", "UserGrantRole", result)
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Answer<AuthUserRevokeRoleResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::UserRevokeRole(request)).await;
        let result = result.map(|header| AuthUserRevokeRoleResponse { header });
        finish(&self.0, "Auth", "UserRevokeRole", result)
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Answer<AuthRoleAddResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::RoleAdd(request)).await;
        let result = result.map(|header| AuthRoleAddResponse { header });
        finish(&self.0, "Auth", "RoleAdd", result)
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Answer<AuthRoleGetResponse> {
        let (sender, AuthRoleGetRequest { role }) = Sender::split(request);
        let look = |auth: &Auth, caller: Option<&Caller>| {
            let has_it = |caller: &Caller| {
                auth.user(&caller.user)
                    .is_ok_and(|user| user.roles.contains(&role))
            };
            auth.permit_root(caller).or_else(|error| {
                if caller.is_some_and(has_it) {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
            auth.permissions(&role)
        };
        let result = self.read(&sender, look).await;
        let result = result.map(|(header, perm)| AuthRoleGetResponse { header, perm });
        finish(&self.0, "Auth", "RoleGet", result)
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Answer<AuthRoleListResponse> {
        let look = |auth: &Auth, caller: Option<&Caller>| {
            auth.permit_root(caller)?;
            Ok(auth.roles().cloned().collect())
        };
        let result = self.read(&Sender::split(request).0, look).await;
        let result = result.map(|(header, roles)| AuthRoleListResponse { header, roles });
        finish(&self.0, "Auth", "RoleList", result)
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Answer<AuthRoleDeleteResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.change(&sender, Action::RoleDelete(request)).await;
        let result = result.map(|header| AuthRoleDeleteResponse { header });
        finish(&self.0, "Auth", "RoleDelete", result)
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Answer<AuthRoleGrantPermissionResponse> {
        let (sender, request) = Sender::split(request);
        let action = Action::RoleGrantPermission(request);
        let result = self.change(&sender, action).await;
        let result = result.map(|header| AuthRoleGrantPermissionResponse { header });
        finish(&self.0, "Auth", "RoleGrantPermission", result)
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Answer<AuthRoleRevokePermissionResponse> {
        let (sender, request) = Sender::split(request);
        let action = Action::RoleRevokePermission(request);
        let result = self.change(&sender, action).await;
        let result = result.map(|header| AuthRoleRevokePermissionResponse { header });
        finish(&self.0, "Auth", "RoleRevokePermission", result)
    }
}
