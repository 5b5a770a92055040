//! Cluster: the membership.
//!
//! Not here: what a change of the membership needs (`membership`), and how it is agreed on (`reactor`).

use tonic::{Request, Response, Status};

use crate::handle::{Handle, Sender};
use crate::membership::Change;
use crate::pb::etcd::*;
use crate::rpc_data::{finish, Door, FORWARDED};

/// The Cluster service of one member, by the door that its calls come in at.
#[derive(Clone)]
pub struct ClusterService(pub Handle, pub Door);

type Answer<T> = Result<Response<T>, Status>;

impl ClusterService {
    /// Lets only root change the membership.
    async fn judge(&self, sender: &Sender) -> Result<(), Status> {
        self.1.refuse_peers()?;
        self.0.require_root(sender).await.map(drop)
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for ClusterService {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Answer<MemberAddResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            self.judge(&sender).await?;
            let (id, members) = self
                .0
                .add_member(request.peer_ur_ls, request.is_learner)
                .await?;
            let member = members.iter().find(|m| m.id == id).cloned();
            Ok(MemberAddResponse {
                header: Some(self.0.header_without_revision()),
                member,
                members,
            })
        };
        finish(&self.0, "Cluster", "MemberAdd", result.await)
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Answer<MemberRemoveResponse> {
        let result = async {
            let (sender, MemberRemoveRequest { id }) = Sender::split(request);
            self.judge(&sender).await?;
            let members = self.0.change(Change::Remove { id }).await?;
            Ok(MemberRemoveResponse {
                header: Some(self.0.header_without_revision()),
                members,
            })
        };
        finish(&self.0, "Cluster", "MemberRemove", result.await)
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Answer<MemberUpdateResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            self.judge(&sender).await?;
            let change = Change::Update {
                id: request.id,
                peer_urls: request.peer_ur_ls,
            };
            let members = self.0.change(change).await?;
            Ok(MemberUpdateResponse {
                header: Some(self.0.header_without_revision()),
                members,
            })
        };
        finish(&self.0, "Cluster", "MemberUpdate", result.await)
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Answer<MemberListResponse> {
        let result = async {
            self.1.refuse_peers()?;
            let (sender, request) = Sender::split(request);
            if request.linearizable {
                self.0.linearize().await?;
            }
            self.0.require_user(&sender).await?;
            let members = self.0.core()?.membership.list();
            Ok(MemberListResponse {
                header: Some(self.0.header_without_revision()),
                members,
            })
        };
        finish(&self.0, "Cluster", "MemberList", result.await)
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Answer<MemberPromoteResponse> {
        let forwarded = request.metadata().contains_key(FORWARDED);
        let result = async {
            let (sender, MemberPromoteRequest { id }) = Sender::split(request);
            if self.1 == Door::Clients {
                self.0.require_root(&sender).await?;
            }
            let members = self.0.promote(id, forwarded).await?;
            Ok(MemberPromoteResponse {
                header: Some(self.0.header_without_revision()),
                members,
            })
        };
        finish(&self.0, "Cluster", "MemberPromote", result.await)
    }
}
