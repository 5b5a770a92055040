//! Changes of the membership, from the call to what the cluster agreed on.

use tokio::sync::oneshot;
use tonic::Status;

use super::leader::{marked, FORWARD_PAUSE};
use super::{random_u64, write, Handle};
use crate::address::Address;
use crate::errors::StoreError;
use crate::membership::{Change, Member};
use crate::pb::etcd;
use crate::reactor::Input;

impl Handle {
    /// Agrees on a change of the membership.
    pub async fn change(&self, change: Change) -> Result<Vec<etcd::Member>, Status> {
        self.refuse_as_learner()?;
        if self.limits().strict_reconfig_check {
            // Before the read: where it refuses there may be no quorum that could answer one.
            self.core()?.membership.check_started(&change)?;
        }
        self.linearize().await?;
        self.core()?.membership.check(&change)?;
        let (reply, wait) = oneshot::channel();
        let pending = write::Pending::new(self);
        let queued = self.queue(Input::Change { change, reply });
        self.proposed(queued, wait).await?;
        drop(pending);
        Ok(self.core()?.membership.list())
    }

    /// Adds a member under an id that no member ever had.
    pub async fn add_member(
        &self,
        peer_urls: Vec<String>,
        learner: bool,
    ) -> Result<(u64, Vec<etcd::Member>), Status> {
        if peer_urls.is_empty() || peer_urls.iter().any(|url| Address::parse(url).is_err()) {
            return Err(StoreError::BadPeerUrls.into());
        }
        let id = random_u64()?;
        let member = Member {
            id,
            peer_urls,
            learner,
            ..Member::default()
        };
        Ok((id, self.change(Change::Add(member)).await?))
    }

    /// Promotes a learner that has caught up, which the leader knows.
    pub async fn promote(&self, id: u64, forwarded: bool) -> Result<Vec<etcd::Member>, Status> {
        self.refuse_as_learner()?;
        let remote = |channel| async move {
            let mut client = etcd::cluster_client::ClusterClient::new(channel);
            let request = marked(etcd::MemberPromoteRequest { id });
            Ok(client.member_promote(request).await?.into_inner().members)
        };
        let end = tokio::time::Instant::now() + self.limits().request_timeout;
        let moved = |status: &Status| {
            [StoreError::NotLeader, StoreError::NoLeader]
                .iter()
                .any(|e| status.message() == e.to_string())
        };
        loop {
            let result = if self.is_leader() {
                self.change(Change::Promote { id }).await
            } else if forwarded {
                Err(StoreError::NotLeader.into())
            } else {
                match self.leader_channel() {
                    Ok(channel) => tokio::time::timeout_at(end, remote(channel))
                        .await
                        .unwrap_or_else(|_| Err(StoreError::Timeout.into())),
                    Err(status) => Err(status),
                }
            };
            match result {
                // Nothing was proposed: the leader that is now judges anew.
                Err(status)
                    if moved(&status)
                        && !forwarded
                        && tokio::time::Instant::now() + FORWARD_PAUSE < end =>
                {
                    tokio::time::sleep(FORWARD_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}
