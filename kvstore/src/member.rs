//! A member's life: its data directory, founding or joining or coming back, then serving until told to stop.
//!
//! Not here: what lies in the directory (`home`), the turn of work (`reactor`), sockets (`listen`, `peer`).

mod home;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::backend::BackendError;
use crate::command::{Command, MemberAttributes};
use crate::config::{Config, ConfigError};
use crate::consensus::Refused;
use crate::errors::StoreError;
use crate::gateway;
use crate::handle::{random_u64, Core, Facts, Handle, Limits};
use crate::lease::Lessor;
use crate::listen::{bind, serve, Routes};
use crate::pb::etcd::cluster_server::ClusterServer;
use crate::pb::etcd::kv_server::KvServer;
use crate::pb::etcd::lease_server::LeaseServer;
use crate::pb::etcd::maintenance_server::MaintenanceServer;
use crate::pb::etcd::watch_server::WatchServer;
use crate::pb::peer::peer_server::PeerServer;
use crate::peer::{PeerService, Peers, MAX_FRAME_BYTES};
use crate::reactor::{Broken, End, Reactor, Waiting};
use crate::rpc_admin::{ClusterService, MaintenanceService};
use crate::rpc_data::{KvService, LeaseService};
use crate::rpc_watch::WatchService;
use crate::wal::WalError;
use home::{lock, settle, warn_of_differences, Home};

/// Peer events that may wait for the reactor; then peers wait.
const MAX_WAITING_EVENTS: usize = 1_024;
/// Added to the largest request, for what surrounds it (etcd's `grpcOverheadBytes`).
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
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
    State(#[from] BackendError),
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

/// Runs a member until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start, was removed, or its disk fails.
pub fn run(config_json: &str) -> Result<(), StartError> {
    let config = Config::parse(config_json)?;
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
    let _lock = lock(&config.data_dir)?;
    let client_sockets = bind(&config.listen_client_urls)?;
    let peer_sockets = bind(&config.listen_peer_urls)?;
    let mut term = signal(SignalKind::terminate()).map_err(io(Path::new("SIGTERM")))?;
    let mut int = signal(SignalKind::interrupt()).map_err(io(Path::new("SIGINT")))?;
    let home = tokio::select! {
        home = settle(&config) => home?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let Home {
        owner,
        membership,
        store,
        mut consensus,
        disk,
        synced,
        state_dir,
    } = home;
    if membership.removed.contains(&owner.member_id) {
        return Err(StartError::Removed(config.data_dir.display().to_string()));
    }
    warn_of_differences(&config, &owner, &membership);
    let alone = membership.voters().eq([owner.member_id]);
    // Etcd's smallest TTL: one and a half election timeouts.
    let min_ttl_s =
        i64::try_from((config.election_timeout * 3 / 2).div_ceil(1000)).unwrap_or(i64::MAX);
    let facts = Facts {
        cluster_id: owner.cluster_id,
        member_id: owner.member_id,
        ..Facts::default()
    };
    facts
        .applied
        .store(store.applied().0, std::sync::atomic::Ordering::Relaxed);
    let core = Core {
        store: Some(store),
        hub: crate::watch::Hub::default(),
        streams: HashMap::new(),
        lessor: Lessor::new(min_ttl_s),
        membership,
        overrides: config.overrides()?,
    };
    let limits = Limits {
        max_txn_ops: config.max_txn_ops,
        max_request_bytes: config.max_request_bytes,
        quota_bytes: config.quota_backend_bytes,
        request_timeout: config.request_timeout(),
        strict_reconfig_check: config.strict_reconfig_check,
    };
    let (handle, inputs) = Handle::new(core, facts, limits);
    let (tell, events) = mpsc::channel(MAX_WAITING_EVENTS);
    let (stopper, stop) = watch::channel(false);
    let (doors, closing) = watch::channel(false);
    for socket in client_sockets {
        tokio::spawn(serve(socket, client_routes(&handle), closing.clone()));
    }
    drop(closing);
    // Peers are served to the very end.
    let place: std::sync::Arc<tokio::sync::Mutex<()>> = std::sync::Arc::default();
    let (_open, open) = watch::channel(false);
    for socket in peer_sockets {
        tokio::spawn(serve(
            socket,
            peer_routes(&handle, tell.clone(), state_dir.clone(), place.clone()),
            open.clone(),
        ));
    }
    if alone {
        consensus.campaign()?;
    }
    let peers = Peers::new(owner.cluster_id, owner.member_id, tell);
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
    };
    reactor.dial()?;
    let data_dir = reactor.config.data_dir.display().to_string();
    tokio::spawn(publish(
        handle,
        owner.name,
        reactor.config.advertise_client_urls.clone(),
    ));
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        // A reactor that is gone has stopped already.
        let _ = stopper.send(true);
    });
    match reactor.run().await? {
        End::Stopped => Ok(()),
        End::Removed => Err(StartError::Removed(data_dir)),
    }
}

fn http_routes(handle: &Handle) -> Routes {
    let handle = handle.clone();
    Routes::new(move |request| gateway::handle(&request, || handle.figures(), handle.calls()))
}

fn client_routes(handle: &Handle) -> Routes {
    let most = handle.limits().max_request_bytes + GRPC_OVERHEAD_BYTES;
    let leader = handle.clone();
    http_routes(handle)
        .refusing(move |request| {
            let wants = request.headers().get("hasleader");
            let refused = wants.is_some_and(|v| v == "true") && !leader.has_leader();
            refused.then(|| StoreError::NoLeader.into())
        })
        .with(KvServer::new(KvService(handle.clone())).max_decoding_message_size(most))
        .with(WatchServer::new(WatchService(handle.clone())).max_decoding_message_size(most))
        .with(LeaseServer::new(LeaseService(handle.clone())).max_decoding_message_size(most))
        .with(ClusterServer::new(ClusterService(handle.clone())).max_decoding_message_size(most))
        .with(
            MaintenanceServer::new(MaintenanceService(handle.clone()))
                .max_decoding_message_size(most),
        )
}

/// What a member that follows passes on arrives on the peer port too.
fn peer_routes(
    handle: &Handle,
    events: mpsc::Sender<crate::peer::PeerEvent>,
    state_dir: PathBuf,
    place: std::sync::Arc<tokio::sync::Mutex<()>>,
) -> Routes {
    let doorkeeper = std::sync::Arc::new(handle.clone());
    let service = PeerService::new(doorkeeper, events, state_dir, place);
    http_routes(handle)
        .with(PeerServer::new(service).max_decoding_message_size(MAX_FRAME_BYTES))
        .with(LeaseServer::new(LeaseService(handle.clone())))
        .with(ClusterServer::new(ClusterService(handle.clone())))
}

/// Tells the cluster this member's name and client URLs, until it knows them.
async fn publish(handle: Handle, name: String, client_urls: Vec<String>) {
    let id = handle.facts().member_id;
    loop {
        let known = handle.core().ok().is_some_and(|core| {
            core.membership
                .members
                .get(&id)
                .is_some_and(|m| m.name == name && m.client_urls == client_urls)
        });
        if known {
            return;
        }
        let attributes = MemberAttributes {
            id,
            name: name.clone(),
            client_urls: client_urls.clone(),
        };
        if handle.has_leader()
            && handle
                .propose(Command::MemberAttributes(attributes))
                .await
                .is_ok()
        {
            return;
        }
        tokio::time::sleep(PUBLISH_PAUSE).await;
    }
}
