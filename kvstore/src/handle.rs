//! What the RPC services hold of the reactor: a queue to it, and the state that they may read in place.
//!
//! All of it lives on the reactor's thread; the mutex is never contended and never held across an await.

mod alarms;
mod caller;
mod changes;
mod defragment;
mod door;
mod downgrade;
mod figures;
mod hashing;
mod leader;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch, Notify};
use tonic::transport::Channel;
use tonic::Status;

use crate::apply::Store;
use crate::auth::password::Passwords;
use crate::budget::Budget;
use crate::errors::StoreError;
use crate::gateway::Calls;
use crate::lease::Lessor;
use crate::measures;
use crate::membership::Membership;
use crate::pb::etcd::ResponseHeader;
use crate::peer::Dialer;
use crate::reactor::{self, Input, InputSender, Inputs};
use crate::watch::{Hub, WatcherId};
pub use caller::Sender;
pub use defragment::StatePlace;

/// Requests that may wait for the reactor; more are refused with etcd's `too many requests`.
pub const MAX_WAITING_REQUESTS: usize = 16_384;
/// Added to the largest request, for what surrounds it (etcd's `grpcOverheadBytes`).
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Bounds on what a client may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub quota_bytes: u64,
    pub request_timeout: Duration,
    pub strict_reconfig_check: bool,
    pub progress_every: Duration,
    /// Of passwords' hashes; each step doubles their cost.
    pub bcrypt_cost: u32,
    /// Whether it is measured how long calls take.
    pub times_calls: bool,
}

impl Limits {
    /// The largest message to or from a client.
    pub fn message_bytes(&self) -> usize {
        self.max_request_bytes + GRPC_OVERHEAD_BYTES
    }
}

/// Facts of this member, readable without the state's lock.
#[derive(Debug, Default)]
pub struct Facts {
    pub cluster_id: u64,
    pub member_id: u64,
    pub term: AtomicU64,
    pub leader: AtomicU64,
    pub committed: AtomicU64,
    pub applied: AtomicU64,
    pub leader_changes: AtomicU64,
    pub pending: AtomicU64,
    pub failed: AtomicU64,
    pub db_bytes: AtomicU64,
    pub db_used_bytes: AtomicU64,
    /// Whether writes that make the state grow are refused.
    pub no_space: AtomicBool,
    /// Whether one was refused since it was last looked.
    pub refused_for_space: AtomicBool,
    pub is_learner: AtomicBool,
    /// Whether requests are asked who sends them.
    pub auth_enabled: AtomicBool,
}

/// A watch stream, as the reactor wakes it.
#[derive(Debug, Default)]
pub struct WatchStream {
    pub ready: Mutex<std::collections::BTreeSet<WatcherId>>,
    pub closed: AtomicBool,
    pub notify: Notify,
}

fn replaced() -> Status {
    StoreError::Replaced.into()
}

/// The state of this member.
pub struct Core {
    /// None while a snapshot replaces it.
    pub store: Option<Store>,
    pub hub: Hub,
    pub streams: HashMap<WatcherId, Arc<WatchStream>>,
    pub lessor: Lessor,
    pub membership: Membership,
    /// Peer URLs that hold instead of the membership's.
    pub overrides: HashMap<u64, Vec<String>>,
}

impl Core {
    pub fn store(&self) -> Result<&Store, Status> {
        self.store.as_ref().ok_or_else(replaced)
    }

    pub fn store_mut(&mut self) -> Result<&mut Store, Status> {
        self.store.as_mut().ok_or_else(replaced)
    }

    /// Where a member's peers are to be dialed.
    pub fn peer_urls(&self, id: u64) -> Vec<String> {
        let members = || {
            self.membership
                .members
                .get(&id)
                .map(|m| m.peer_urls.clone())
                .unwrap_or_default()
        };
        self.overrides.get(&id).cloned().unwrap_or_else(members)
    }
}

struct Shared {
    core: Mutex<Core>,
    facts: Facts,
    calls: Calls,
    limits: Limits,
    started: Instant,
    dialer: Dialer,
    channels: Mutex<HashMap<String, Channel>>,
    nudge: Notify,
    writes: Budget,
    hashing: hashing::Turns,
    leaders: watch::Sender<u64>,
    applied_more: Notify,
    passwords: Passwords,
    newcomers: Notify,
    compactions: Notify,
}

/// The services' side of the reactor.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    inputs: InputSender,
}

impl Handle {
    pub fn new(core: Core, facts: Facts, limits: Limits, dialer: Dialer) -> (Self, Inputs) {
        let (inputs, queue) = reactor::inputs();
        let shared = Shared {
            core: Mutex::new(core),
            facts,
            calls: Calls::new(limits.times_calls),
            limits,
            started: Instant::now(),
            dialer,
            channels: Mutex::default(),
            nudge: Notify::new(),
            leaders: watch::Sender::new(0),
            newcomers: Notify::new(),
            compactions: Notify::new(),
            writes: Budget::new(write::MAX_WAITING_BYTES),
            applied_more: Notify::new(),
            passwords: Passwords::new(limits.bcrypt_cost),
            hashing: hashing::Turns::default(),
        };
        let handle = Self {
            shared: Arc::new(shared),
            inputs,
        };
        if let Ok(core) = handle.core() {
            core.store.iter().for_each(|store| handle.note_auth(store));
        }
        (handle, queue)
    }

    pub fn calls(&self) -> &Calls {
        &self.shared.calls
    }

    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// Tells the reactor that a watcher may be brought nearer.
    pub fn nudge(&self) -> &Notify {
        &self.shared.nudge
    }

    /// Notified whenever entries were applied.
    pub fn applied_more(&self) -> &Notify {
        &self.shared.applied_more
    }

    pub fn passwords(&self) -> &Passwords {
        &self.shared.passwords
    }

    /// Dials other members.
    pub fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// Notified when another member runs a newer program than before: it may not know what this one said of itself.
    pub fn newcomers(&self) -> &Notify {
        &self.shared.newcomers
    }

    /// Notified of each compaction, for the one who notes their hashes.
    pub fn compactions(&self) -> &Notify {
        &self.shared.compactions
    }

    /// Milliseconds of this member's own clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes who leads now, 0 when nobody does, and tells who waits for it; returns who did before.
    pub fn led_by(&self, leader: u64) -> u64 {
        let before = self.facts().leader.swap(leader, Ordering::Relaxed);
        if before != leader {
            self.shared.leaders.send_replace(leader);
        }
        before
    }

    pub fn has_leader(&self) -> bool {
        self.facts().leader.load(Ordering::Relaxed) != 0
    }

    /// Waits until somebody leads.
    pub async fn led(&self) {
        let mut leaders = self.shared.leaders.subscribe();
        // It ends with this handle only.
        let _ = leaders.wait_for(|leader| *leader != 0).await;
    }

    pub fn is_leader(&self) -> bool {
        self.facts().leader.load(Ordering::Relaxed) == self.facts().member_id
    }

    /// The state; a poisoned lock means that applying panicked, and then nothing may be read from it.
    pub fn core(&self) -> Result<MutexGuard<'_, Core>, Status> {
        self.shared
            .core
            .lock()
            .map_err(|_| Status::internal("the state is unusable, since applying to it failed"))
    }

    /// This member's header at a revision; 0 stands for the current one.
    pub fn header(&self, revision: i64) -> ResponseHeader {
        let now = || {
            self.core()
                .ok()
                .and_then(|c| c.store.as_ref().map(Store::revision))
                .unwrap_or(0)
        };
        ResponseHeader {
            revision: if revision == 0 { now() } else { revision },
            ..self.header_without_revision()
        }
    }

    /// This member's header where etcd tells no revision.
    pub fn header_without_revision(&self) -> ResponseHeader {
        let facts = self.facts();
        ResponseHeader {
            cluster_id: facts.cluster_id,
            member_id: facts.member_id,
            revision: 0,
            raft_term: facts.term.load(Ordering::Relaxed),
        }
    }

    fn queue(&self, input: Input) -> Result<(), Status> {
        Ok(self.inputs.send(input)?)
    }

    async fn answer<T>(
        &self,
        reply: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.shared.limits.request_timeout, reply).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(StoreError::Stopped.into()),
            Err(_) => Err(StoreError::Timeout.into()),
        }
    }

    pub(crate) fn refuse_as_learner(&self) -> Result<(), StoreError> {
        if self.facts().is_learner.load(Ordering::Relaxed) {
            return Err(StoreError::NotSupportedForLearner);
        }
        Ok(())
    }

    /// Waits until nothing is left of what was compacted here.
    pub async fn swept(&self) -> Result<(), Status> {
        loop {
            let swept = self.core()?.store()?.swept();
            let done = swept.notified();
            if !self.core()?.store()?.is_sweeping() {
                return Ok(());
            }
            done.await;
        }
    }

    /// Waits until everything that was committed before now is applied here.
    pub async fn linearize(&self) -> Result<(), Status> {
        self.confirm(false).await
    }

    /// As [`Self::linearize`]; for the renewal of a lease it goes before what waits with it.
    async fn confirm(&self, renews: bool) -> Result<(), Status> {
        self.refuse_as_learner()?;
        let (reply, wait) = oneshot::channel();
        self.queue(Input::Read { reply, renews })?;
        let confirmed = self.answer(wait).await;
        if let Err(status) = &confirmed {
            measures::READS_FAILED.fetch_add(1, Ordering::Relaxed);
            let late = StoreError::Timeout.to_string() == status.message();
            measures::READS_SLOW.fetch_add(late.into(), Ordering::Relaxed);
        }
        confirmed
    }

    /// An id for a lease whose client gave none.
    pub fn fresh_lease_id(&self) -> Result<i64, Status> {
        Ok(i64::try_from(random_u64()? >> 1).unwrap_or(1).max(1))
    }
}

/// A random number from the system.
pub fn random_u64() -> Result<u64, Status> {
    getrandom::u64()
        .map(|n| n.max(1))
        .map_err(|e| Status::internal(format!("the system gives no random number: {e}")))
}

#[cfg(test)]
#[path = "handle_tests.rs"]
pub(crate) mod tests;
