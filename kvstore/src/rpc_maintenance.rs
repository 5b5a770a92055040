//! Maintenance: the state of this member.
//!
//! Not here: how a snapshot is read and sent (`rpc_snapshot`).

use tonic::{Request, Response, Status};

use crate::alarm::name;
use crate::downgrade::Release;
use crate::gateway::{Figures, SERVER_VERSION};
use crate::handle::{Handle, Sender, StatePlace};
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::*;
use crate::rpc_data::finish;
use crate::rpc_snapshot::{SnapshotStream, Streams};

/// The Maintenance service of one member; its copies share how many snapshots are under way.
#[derive(Clone)]
pub struct MaintenanceService(pub Handle, pub Streams, pub StatePlace);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl maintenance_server::Maintenance for MaintenanceService {
    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let allowed = self.0.require_user(&Sender::split(request).0).await;
        let figures = self.0.figures();
        let response = StatusResponse {
            header: Some(self.0.header(0)),
            version: SERVER_VERSION.to_owned(),
            db_size: figures.db_bytes as i64,
            db_size_in_use: figures.db_used_bytes as i64,
            leader: figures.leader,
            raft_index: figures.proposals_committed,
            raft_term: figures.term,
            raft_applied_index: figures.proposals_applied,
            errors: troubles(&figures),
            is_learner: figures.is_learner,
            storage_version: figures.downgrade.cluster().version(),
            db_size_quota: self.0.limits().quota_bytes as i64,
            downgrade_info: Some(DowngradeInfo {
                enabled: figures.downgrade.0.is_some(),
                target_version: figures
                    .downgrade
                    .0
                    .map(Release::version)
                    .unwrap_or_default(),
            }),
        };
        let result = allowed.map(|_| response);
        finish(&self.0, "Maintenance", "Status", result)
    }

    async fn alarm(&self, request: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            if request.action == AlarmAction::Get as i32 {
                self.0.require_user(&sender).await?;
            } else {
                self.0.require_root(&sender).await?;
            }
            self.0.alarm(request).await
        };
        finish(&self.0, "Maintenance", "Alarm", result.await)
    }

    async fn defragment(&self, request: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        let result = async {
            self.0.refuse_as_learner()?;
            self.0.require_root(&Sender::split(request).0).await?;
            self.0.defragment(&self.2).await
        };
        // Etcd gives this answer no header.
        let result = result.await.map(|()| DefragmentResponse { header: None });
        finish(&self.0, "Maintenance", "Defragment", result)
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Answer<DowngradeResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            self.0.require_root(&sender).await?;
            self.0.downgrade(request).await
        };
        finish(&self.0, "Maintenance", "Downgrade", result.await)
    }

    async fn hash(&self, request: Request<HashRequest>) -> Answer<HashResponse> {
        let result = async {
            self.0.refuse_as_learner()?;
            self.0.require_root(&Sender::split(request).0).await?;
            let (hash, revision) = self.0.hash_all().await?;
            Ok(HashResponse {
                header: Some(self.0.header(revision)),
                hash,
            })
        };
        finish(&self.0, "Maintenance", "Hash", result.await)
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        let result = async {
            self.0.refuse_as_learner()?;
            let (sender, HashKvRequest { revision }) = Sender::split(request);
            self.0.require_root(&sender).await?;
            let sum = self.0.hash_keys(revision).await?;
            Ok(HashKvResponse {
                header: Some(self.0.header(sum.current)),
                hash: sum.hash,
                compact_revision: sum.compacted,
                hash_revision: sum.revision,
            })
        };
        finish(&self.0, "Maintenance", "HashKV", result.await)
    }

    type SnapshotStream = SnapshotStream;

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Answer<SnapshotStream> {
        let result = async {
            self.0.require_root(&Sender::split(request).0).await?;
            self.1.begin(&self.0)
        };
        finish(&self.0, "Maintenance", "Snapshot", result.await)
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            self.0.require_root(&sender).await?;
            self.0.move_leader(request.target_id).await?;
            // Etcd gives this answer no header.
            Ok(MoveLeaderResponse { header: None })
        };
        finish(&self.0, "Maintenance", "MoveLeader", result.await)
    }
}

/// What a status tells of this member's troubles, in etcd's words.
fn troubles(figures: &Figures) -> Vec<String> {
    let leaderless = (!figures.has_leader).then(|| "etcdserver: no leader".to_owned());
    let mine = AlarmMember {
        member_id: figures.member_id,
        alarm: AlarmType::Nospace.into(),
    };
    // A full disk is no alarm of the cluster's, but looks like one here.
    let full = figures.no_space && !figures.alarms.contains(&mine);
    let alarms = figures.alarms.iter().chain(full.then_some(&mine));
    let told = |one: &AlarmMember| format!("memberID:{} alarm:{} ", one.member_id, name(one));
    leaderless.into_iter().chain(alarms.map(told)).collect()
}
