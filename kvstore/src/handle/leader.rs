//! What only the leader can do: it is done here, or passed on to where the leader is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::Handle;
use crate::command::{Command, LeaseCheckpoint, LeaseCheckpoints};
use crate::errors::StoreError;
use crate::measures::LEASES_RENEWED;
use crate::pb::etcd;
use crate::reactor::Input;
use crate::rpc_data::FORWARDED;

/// Pause before a request is passed to the leader again.
pub(super) const FORWARD_PAUSE: Duration = Duration::from_millis(50);

impl Handle {
    /// Hands leadership over and waits until it is.
    pub async fn move_leader(&self, to: u64) -> Result<(), Status> {
        if !self.is_leader() {
            return Err(StoreError::NotLeader.into());
        }
        if !self.core()?.membership.voters().any(|id| id == to) {
            return Err(StoreError::BadTransferee.into());
        }
        if to == self.facts().member_id {
            return Ok(());
        }
        let (reply, wait) = oneshot::channel();
        self.queue(Input::Transfer { to, reply })?;
        match self.answer(wait).await {
            Err(status) if status.message() == StoreError::Timeout.to_string() => {
                Err(StoreError::TransferTimeout.into())
            }
            other => other,
        }
    }

    pub(super) fn leader_channel(&self) -> Result<Channel, Status> {
        let leader = self.facts().leader.load(Ordering::Relaxed);
        if leader == 0 {
            return Err(StoreError::NoLeader.into());
        }
        let urls = self.core()?.peer_urls(leader);
        let url = urls.first().ok_or(StoreError::NoLeader)?;
        let mut channels = self
            .shared
            .channels
            .lock()
            .map_err(|_| StoreError::NoLeader)?;
        if let Some(channel) = channels.get(url) {
            return Ok(channel.clone());
        }
        let channel = self.shared.dialer.channel(url)?;
        channels.insert(url.clone(), channel.clone());
        Ok(channel)
    }

    /// Does something where the leader is: here, or over there by `remote`; repeats until there is an answer or no time,
    /// and at once where leadership goes: one that hangs answers nobody.
    async fn at_leader<T, L, R, F>(&self, forwarded: bool, local: L, remote: R) -> Result<T, Status>
    where
        L: Fn(&Self) -> Result<T, Status>,
        R: Fn(Channel) -> F,
        F: std::future::Future<Output = Result<T, Status>>,
    {
        let end = tokio::time::Instant::now() + self.limits().request_timeout;
        let mut leaders = self.shared.leaders.subscribe();
        loop {
            leaders.borrow_and_update();
            if self.is_leader() {
                return local(self);
            }
            if forwarded {
                return Err(StoreError::NotLeader.into());
            }
            if let Ok(channel) = self.leader_channel() {
                let answer = tokio::select! {
                    answer = tokio::time::timeout_at(end, remote(channel)) => answer.ok(),
                    _ = leaders.changed() => continue,
                };
                match answer {
                    Some(Ok(answer)) => return Ok(answer),
                    Some(Err(status)) if !is_passing(&status) => return Err(status),
                    _ => {}
                }
            }
            if tokio::time::Instant::now() + FORWARD_PAUSE > end {
                return Err(StoreError::Timeout.into());
            }
            tokio::select! {
                _ = leaders.changed() => {}
                () = tokio::time::sleep(FORWARD_PAUSE) => {}
            }
        }
    }

    /// Renews a lease at the leader; the TTL, 0 when there is no such lease.
    pub async fn renew(&self, id: i64, forwarded: bool) -> Result<i64, Status> {
        let noted = AtomicBool::new(false);
        let local = |handle: &Self| {
            let now = handle.now_ms();
            let renewed = handle.core()?.lessor.renew(id, now);
            if renewed.is_some() {
                LEASES_RENEWED.fetch_add(1, Ordering::Relaxed);
            }
            noted.store(renewed.is_some_and(|r| r.noted), Ordering::Relaxed);
            Ok(renewed.map_or(0, |renewed| renewed.ttl_s))
        };
        let remote = |channel| async move {
            let mut client = etcd::lease_client::LeaseClient::new(channel);
            let request = futures::stream::iter([etcd::LeaseKeepAliveRequest { id }]);
            let mut answers = client.lease_keep_alive(marked(request)).await?.into_inner();
            let answer = answers
                .message()
                .await?
                .ok_or_else(|| Status::unavailable("the leader said nothing"))?;
            Ok(answer.ttl)
        };
        if self.is_leader() {
            // A leader that was paused or cut off may have a successor that lets leases end; and a majority without this
            // member's disk commits too, so that a grant may be on its way here.
            self.confirm(true).await?;
        }
        let mut ttl = self.at_leader(forwarded, &local, &remote).await?;
        if ttl == 0 && self.is_leader() {
            self.confirm(true).await?;
            ttl = self.at_leader(forwarded, &local, &remote).await?;
        }
        if noted.load(Ordering::Relaxed) {
            self.note_renewal(id).await?;
        }
        Ok(ttl)
    }

    /// Takes back in the log that less than all is left of a lease, before its client is told so: the next leader goes by
    /// the log.
    async fn note_renewal(&self, id: i64) -> Result<(), Status> {
        let command = Command::LeaseCheckpoint(LeaseCheckpoints {
            checkpoints: vec![LeaseCheckpoint {
                id,
                remaining_ttl: 0,
            }],
        });
        match self.propose_capably(command).await {
            // A member with an older program has joined since: its like give every lease its whole TTL.
            Err(status) if status.message() == StoreError::NotCapable.to_string() => Ok(()),
            other => other.map(drop),
        }
    }

    /// What is left of a lease, as its leader knows.
    pub async fn time_to_live(
        &self,
        request: etcd::LeaseTimeToLiveRequest,
        forwarded: bool,
    ) -> Result<etcd::LeaseTimeToLiveResponse, Status> {
        self.linearize().await?;
        let local = |handle: &Self| {
            let core = handle.core()?;
            let (ttl, granted_ttl) = core
                .lessor
                .time_to_live(request.id, handle.now_ms())
                .unwrap_or((-1, 0));
            let keys = if request.keys {
                core.store()?.lease_keys(request.id)
            } else {
                Vec::new()
            };
            Ok(etcd::LeaseTimeToLiveResponse {
                header: None,
                id: request.id,
                ttl,
                granted_ttl,
                keys,
            })
        };
        let remote = |channel| async move {
            let mut client = etcd::lease_client::LeaseClient::new(channel);
            Ok(client
                .lease_time_to_live(marked(request))
                .await?
                .into_inner())
        };
        self.at_leader(forwarded, local, remote).await
    }
}

/// Whether another try may end better.
fn is_passing(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable
        || status.message() == StoreError::NotLeader.to_string()
}

pub(super) fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}
