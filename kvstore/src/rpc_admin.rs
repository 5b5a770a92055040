//! Cluster and Maintenance: the membership, and the state of this member.
//!
//! Not here: what a change of the membership needs (`membership`), and how it is agreed on (`reactor`).

use tonic::{Request, Response, Status};

use crate::gateway::SERVER_VERSION;
use crate::handle::Handle;
use crate::membership::Change;
use crate::pb::etcd::*;
use crate::rpc_data::{finish, FORWARDED};

/// The Cluster service of one member.
#[derive(Clone)]
pub struct ClusterService(pub Handle);

/// The Maintenance service of one member.
#[derive(Clone)]
pub struct MaintenanceService(pub Handle);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl cluster_server::Cluster for ClusterService {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Answer<MemberAddResponse> {
        let result = async {
            let request = request.into_inner();
            let (id, members) = self
                .0
                .add_member(request.peer_ur_ls, request.is_learner)
                .await?;
            let member = members.iter().find(|m| m.id == id).cloned();
            Ok(MemberAddResponse {
                header: Some(self.0.header(0)),
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
        let result = self
            .0
            .change(Change::Remove {
                id: request.into_inner().id,
            })
            .await;
        let result = result.map(|members| MemberRemoveResponse {
            header: Some(self.0.header(0)),
            members,
        });
        finish(&self.0, "Cluster", "MemberRemove", result)
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Answer<MemberUpdateResponse> {
        let request = request.into_inner();
        let result = self
            .0
            .change(Change::Update {
                id: request.id,
                peer_urls: request.peer_ur_ls,
            })
            .await;
        let result = result.map(|members| MemberUpdateResponse {
            header: Some(self.0.header(0)),
            members,
        });
        finish(&self.0, "Cluster", "MemberUpdate", result)
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Answer<MemberListResponse> {
        let result = async {
            if request.into_inner().linearizable {
                self.0.linearize().await?;
            }
            let members = self.0.core()?.membership.list();
            Ok(MemberListResponse {
                header: Some(self.0.header(0)),
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
        let result = self.0.promote(request.into_inner().id, forwarded).await;
        let result = result.map(|members| MemberPromoteResponse {
            header: Some(self.0.header(0)),
            members,
        });
        finish(&self.0, "Cluster", "MemberPromote", result)
    }
}

#[tonic::async_trait]
impl maintenance_server::Maintenance for MaintenanceService {
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let figures = self.0.figures();
        let response = StatusResponse {
            header: Some(self.0.header(0)),
            version: SERVER_VERSION.to_owned(),
            db_size: figures.db_bytes as i64,
            db_size_in_use: figures.db_bytes as i64,
            leader: figures.leader,
            raft_index: figures.proposals_committed,
            raft_term: figures.term,
            raft_applied_index: figures.proposals_applied,
            errors: if figures.has_leader {
                Vec::new()
            } else {
                vec!["etcdserver: no leader".to_owned()]
            },
            is_learner: figures.is_learner,
        };
        finish(&self.0, "Maintenance", "Status", Ok(response))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        let result = self.0.move_leader(request.into_inner().target_id).await;
        let result = result.map(|()| MoveLeaderResponse {
            header: Some(self.0.header(0)),
        });
        finish(&self.0, "Maintenance", "MoveLeader", result)
    }
}
