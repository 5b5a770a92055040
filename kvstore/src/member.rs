//! A member's life: its data directory, founding or joining or coming back, then serving until told to stop.
//!
//! Not here: what lies in the directory (`home`), going on without the others (`alone`), which cluster a new member is of (`introduction`), the turn of work
//! (`reactor`), sockets (`listen`, `peer`).

mod alone;
mod backups;
mod checking;
mod compacting;
mod comparing;
mod home;
mod introduction;
mod restore;
mod security;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tracing::{info, warn};

use crate::auth::token::Tokens;
use crate::backend::BackendError;
use crate::command::{Command, MemberAttributes, VERSION};
use crate::config::{Config, ConfigError};
use crate::consensus::Refused;
use crate::errors::StoreError;
use crate::etcd_file::EtcdFileError;
use crate::gateway::{self, Access};
use crate::handle::{random_u64, Core, Facts, Handle, Limits, StatePlace};
use crate::lease::Lessor;
use crate::listen::{bind, serve, Routes};
use crate::pb::etcd::auth_server::AuthServer;
use crate::pb::etcd::cluster_server::ClusterServer;
use crate::pb::etcd::kv_server::KvServer;
use crate::pb::etcd::lease_server::LeaseServer;
use crate::pb::etcd::maintenance_server::MaintenanceServer;
use crate::pb::etcd::watch_server::WatchServer;
use crate::pb::health::health_server::HealthServer;
use crate::pb::peer::peer_server::PeerServer;
use crate::pb::v3electionpb::election_server::ElectionServer;
use crate::pb::v3lockpb::lock_server::LockServer;
use crate::peer::{PeerService, Peers, MAX_FRAME_BYTES};
use crate::reactor::{Broken, End, Reactor, Waiting};
use crate::report::{self, hex};
use crate::rpc_auth::AuthService;
use crate::rpc_cluster::ClusterService;
use crate::rpc_data::{Door, KvService, LeaseService};
use crate::rpc_election::ElectionService;
use crate::rpc_health::HealthService;
use crate::rpc_lock::LockService;
use crate::rpc_maintenance::MaintenanceService;
use crate::rpc_snapshot::Streams;
use crate::rpc_watch::WatchService;
use crate::wal::WalError;
pub use backups::Schedule;
use home::{lock, settle, warn_of_differences, Home};
pub use restore::restore;
use security::secure;

/// Peer events that may wait for the reactor; then peers wait.
const MAX_WAITING_EVENTS: usize = 1_024;
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);
/// Why a member does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error("the data directory {0} is in use by another process")]
    InUse(String),
    #[error("{0}")]
    Identity(String),
    #[error("{0}")]
    Join(String),
    #[error("{0}")]
    Corrupt(String),
    #[error("{0}")]
    State(#[from] BackendError),
    #[error("{0}")]
    Snapshot(#[from] EtcdFileError),
    #[error("{0}")]
    Log(#[from] WalError),
    #[error("{0}")]
    Consensus(#[from] Refused),
    #[error("{0}")]
    Broken(#[from] Broken),
    #[error("{}", .0.message())]
    Status(Box<Status>),
    #[error(
        "this member was removed from the cluster; to use this machine again, delete {0} and add it as a new member"
    )]
    Removed(String),
}

impl From<Status> for StartError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StartError + '_ {
    move |source| StartError::Io {
        path: path.display().to_string(),
        source,
    }
}

/// Runs a member until SIGTERM or SIGINT, and returns the exit code: 0, or, with why in the log, 1 when it can't start,
/// was removed, or its disk fails. The warnings go to the log first.
///
/// # Errors
/// A sentence for whoever gave the settings, when they can't be read or make no sense. Log files have it too.
pub fn run(config_json: &str, warnings: &[String]) -> Result<u8, ConfigError> {
    let config = Config::read(config_json)?;
    report::start("kvstore", &config.log).map_err(ConfigError)?;
    match checked(config, warnings) {
        Ok(()) => Ok(0),
        Err(StartError::Config(why)) => {
            report::refused(&why);
            Err(why)
        }
        Err(why) => {
            report::fatal(&why);
            Ok(1)
        }
    }
}

fn checked(config: Config, warnings: &[String]) -> Result<(), StartError> {
    config.check()?;
    config.slow.hold();
    warnings.iter().for_each(|warning| warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Io {
            path: "the runtime".into(),
            source,
        })?;
    runtime.block_on(live(config))
}

async fn live(config: Config) -> Result<(), StartError> {
    let (tokens, overrides) = (Tokens::new(config.tokens()?), config.overrides()?);
    let access = Arc::new(config.http.access()?);
    let _lock = lock(&config.data_dir)?;
    let channels = secure(&config)?;
    info!(
        name = config.name,
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.data_dir.display(),
        listen_client_urls = config.listen_client_urls.join(","),
        listen_peer_urls = config.listen_peer_urls.join(","),
        "a member starts"
    );
    let client_sockets = bind(&config.listen_client_urls, channels.clients.as_ref())?;
    let mut term = signal(SignalKind::terminate()).map_err(io(Path::new("SIGTERM")))?;
    let mut int = signal(SignalKind::interrupt()).map_err(io(Path::new("SIGINT")))?;
    let home = tokio::select! {
        home = settle(&config, &channels.dialer) => home?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    // Not before: founders that start together ask each other, and one that does not serve yet is to refuse at once.
    let peer_sockets = bind(&config.listen_peer_urls, channels.peers.as_ref())?;
    let Home {
        owner,
        membership,
        mut store,
        mut consensus,
        disk,
        synced,
        state_dir,
        space,
    } = home;
    if membership.removed.contains(&owner.member_id) {
        return Err(StartError::Removed(config.data_dir.display().to_string()));
    }
    warn_of_differences(&config, &owner, &membership);
    // Who is new has nothing to compare yet.
    if config.initial_corrupt_check && store.applied().0 > 1 {
        checking::before_serving(&store, &membership, owner.member_id, &channels.dialer).await?;
    }
    let alone = membership.voters().eq([owner.member_id]);
    // Etcd's smallest TTL: one and a half election timeouts.
    let min_ttl_s =
        i64::try_from((config.election_timeout * 3 / 2).div_ceil(1000)).unwrap_or(i64::MAX);
    store.auth_mut().tokens = tokens;
    let facts = Facts {
        cluster_id: owner.cluster_id,
        member_id: owner.member_id,
        db_bytes: store.size().into(),
        ..Facts::default()
    };
    facts
        .applied
        .store(store.applied().0, std::sync::atomic::Ordering::Relaxed);
    let core = Core {
        store: Some(store),
        hub: crate::watch::Hub::default(),
        streams: HashMap::new(),
        lessor: Lessor::new(min_ttl_s, config.lease_checkpoint()),
        membership,
        overrides,
    };
    let limits = Limits {
        max_txn_ops: config.max_txn_ops,
        max_request_bytes: config.max_request_bytes,
        quota_bytes: config.quota_backend_bytes,
        request_timeout: config.request_timeout(),
        strict_reconfig_check: config.strict_reconfig_check,
        progress_every: Duration::from_millis(config.watch_progress_notify_interval),
        bcrypt_cost: config.bcrypt_cost,
        times_calls: config.times_calls(),
    };
    let (handle, inputs) = Handle::new(core, facts, limits, channels.dialer.clone());
    let (tell, events) = mpsc::channel(MAX_WAITING_EVENTS);
    let (stopper, stop) = watch::channel(false);
    let (doors, closing) = watch::channel(false);
    let snapshots = Streams::default();
    let place = StatePlace {
        dir: state_dir.clone(),
        taken: Arc::default(),
    };
    for socket in client_sockets {
        let health = HealthService(handle.clone(), closing.clone());
        let routes =
            client_routes(&handle, &access, &snapshots, &place).with(HealthServer::new(health));
        tokio::spawn(serve(socket, routes, closing.clone()));
    }
    drop(closing);
    // Peers are served to the very end.
    let (_open, open) = watch::channel(false);
    for socket in peer_sockets {
        tokio::spawn(serve(
            socket,
            peer_routes(&handle, tell.clone(), &place),
            open.clone(),
        ));
    }
    if alone {
        consensus.campaign()?;
    }
    let peers = Peers::new(owner.cluster_id, owner.member_id, channels.dialer, tell);
    let waiting = Waiting::new(random_u64()?);
    let mut reactor = Reactor {
        consensus,
        disk,
        synced,
        handle: handle.clone(),
        inputs,
        events,
        peers,
        stop,
        doors,
        config,
        state_dir,
        waiting,
        space,
    };
    reactor.judge_space()?;
    reactor.dial()?;
    info!(
        local_member_id = %hex(owner.member_id),
        cluster_id = %hex(owner.cluster_id),
        name = owner.name,
        advertise_client_urls = reactor.config.advertise_client_urls.join(","),
        "requests are taken"
    );
    let data_dir = reactor.config.data_dir.display().to_string();
    if reactor.config.corrupt_check_time > 0 {
        let every = Duration::from_millis(reactor.config.corrupt_check_time);
        tokio::spawn(checking::run(handle.clone(), every));
    }
    if reactor.config.compact_hash_check {
        let every = Duration::from_millis(reactor.config.compact_hash_check_time);
        tokio::spawn(comparing::note(handle.clone()));
        tokio::spawn(comparing::compare(handle.clone(), every));
    }
    if let Some(retention) = reactor.config.retention()? {
        tokio::spawn(compacting::run(handle.clone(), retention));
    }
    if let Some(schedule) = reactor.config.backups()? {
        tokio::spawn(backups::run(handle.clone(), schedule));
    }
    tokio::spawn(publish(
        handle,
        owner.name,
        reactor.config.advertise_client_urls.clone(),
    ));
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => info!(signal = "terminated", "the member is told to stop"),
            _ = int.recv() => info!(signal = "interrupt", "the member is told to stop"),
        }
        // A reactor that is gone has stopped already.
        let _ = stopper.send(true);
    });
    match reactor.run().await? {
        End::Stopped => Ok(()),
        End::Removed => Err(StartError::Removed(data_dir)),
    }
}

fn client_routes(
    handle: &Handle,
    access: &Arc<Access>,
    snapshots: &Streams,
    place: &StatePlace,
) -> Routes {
    let most = handle.limits().message_bytes();
    let (leader, counted) = (handle.clone(), handle.clone());
    gateway::client_routes(handle, access)
        .measured(move |path| gateway::begin(&counted, path))
        .refusing(move |request| {
            let wants = request.headers().get("hasleader");
            let refused = wants.is_some_and(|v| v == "true") && !leader.has_leader();
            refused.then(|| StoreError::NoLeader.into())
        })
        .with(KvServer::new(KvService(handle.clone())).max_decoding_message_size(most))
        .with(WatchServer::new(WatchService(handle.clone())).max_decoding_message_size(most))
        .with(
            LeaseServer::new(LeaseService(handle.clone(), Door::Clients))
                .max_decoding_message_size(most),
        )
        .with(
            ClusterServer::new(ClusterService(handle.clone(), Door::Clients))
                .max_decoding_message_size(most),
        )
        .with(AuthServer::new(AuthService(handle.clone())).max_decoding_message_size(most))
        .with(LockServer::new(LockService(handle.clone())).max_decoding_message_size(most))
        .with(ElectionServer::new(ElectionService(handle.clone())).max_decoding_message_size(most))
        .with(
            MaintenanceServer::new(MaintenanceService(
                handle.clone(),
                snapshots.clone(),
                place.clone(),
            ))
            .max_decoding_message_size(most),
        )
}

/// What a member that follows passes on arrives on the peer port too.
fn peer_routes(
    handle: &Handle,
    events: mpsc::Sender<crate::peer::PeerEvent>,
    place: &StatePlace,
) -> Routes {
    let StatePlace { dir, taken } = place.clone();
    let service = PeerService::new(Arc::new(handle.clone()), events, dir, taken);
    gateway::peer_routes(handle)
        .with(PeerServer::new(service).max_decoding_message_size(MAX_FRAME_BYTES))
        .with(LeaseServer::new(LeaseService(handle.clone(), Door::Peers)))
        .with(ClusterServer::new(ClusterService(
            handle.clone(),
            Door::Peers,
        )))
}

/// Tells the cluster this member's name, client URLs and what entries it can read; again when another member's program
/// is newer than before, since the one before did not note it.
async fn publish(handle: Handle, name: String, client_urls: Vec<String>) {
    let attributes = MemberAttributes {
        id: handle.facts().member_id,
        name,
        client_urls,
        log_version: VERSION,
    };
    let known = |core: &Core| {
        let member = core.membership.members.get(&attributes.id);
        member.is_some_and(|m| {
            m.name == attributes.name
                && m.client_urls == attributes.client_urls
                && m.log_version == VERSION
        })
    };
    let mut told = handle.core().is_ok_and(|core| known(&core));
    loop {
        if told {
            handle.newcomers().notified().await;
        }
        let command = Command::MemberAttributes(attributes.clone());
        handle.led().await;
        told = handle.propose(command).await.is_ok();
        if !told {
            tokio::time::sleep(PUBLISH_PAUSE).await;
        }
    }
}
