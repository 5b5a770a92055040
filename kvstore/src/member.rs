//! A member's life: its data directory, founding or joining or coming back, then serving until told to stop.
//!
//! Not here: the turn of work (`reactor`), sockets (`listen`, `peer`).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::apply::Store;
use crate::backend::BackendError;
use crate::command::{Command, MemberAttributes};
use crate::config::{Config, ConfigError};
use crate::consensus::{Consensus, Options, Refused};
use crate::disk::{Appender, FileDisk};
use crate::errors::StoreError;
use crate::gateway;
use crate::handle::{random_u64, Core, Facts, Handle, Limits};
use crate::lease::Lessor;
use crate::listen::{bind, serve, Routes};
use crate::membership::{Member, Membership};
use crate::pb::etcd::cluster_server::ClusterServer;
use crate::pb::etcd::kv_server::KvServer;
use crate::pb::etcd::lease_server::LeaseServer;
use crate::pb::etcd::maintenance_server::MaintenanceServer;
use crate::pb::etcd::watch_server::WatchServer;
use crate::pb::peer::peer_server::PeerServer;
use crate::peer::{ask_members, PeerService, Peers, MAX_FRAME_BYTES};
use crate::reactor::{read_membership, Broken, End, Reactor, Waiting, MEMBERSHIP_KEY};
use crate::report;
use crate::rpc_admin::{ClusterService, MaintenanceService};
use crate::rpc_data::{KvService, LeaseService};
use crate::rpc_watch::WatchService;
use crate::wal::{Identity, Wal, WalError};

/// Peer events that may wait for the reactor; then peers wait.
const MAX_WAITING_EVENTS: usize = 1_024;
/// Added to the largest request, for what surrounds it (etcd's `grpcOverheadBytes`).
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);
/// How long the members of an existing cluster are asked for its membership.
const JOIN_TRIES: u32 = 30;
const JOIN_PAUSE: Duration = Duration::from_secs(1);
const IDENTITY_FILE: &str = "member.json";

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

/// What a data directory says of its owner; it outlives every flag.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Owner {
    version: u32,
    cluster_id: u64,
    member_id: u64,
    name: String,
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

fn lock(dir: &Path) -> Result<File, StartError> {
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let path = dir.join("lock");
    let file = File::create(&path).map_err(io(&path))?;
    // SAFETY: the descriptor is open for as long as `file` lives, which is longer than this call.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(StartError::InUse(dir.display().to_string()));
    }
    Ok(file)
}

fn read_owner(dir: &Path) -> Result<Option<Owner>, StartError> {
    let path = dir.join(IDENTITY_FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| StartError::Identity(format!("{} can't be read: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(&path)(e)),
    }
}

/// Written last: a directory without it is one whose founding or joining did not get far, and begins again.
fn write_owner(dir: &Path, owner: &Owner) -> Result<(), StartError> {
    let (path, draft) = (dir.join(IDENTITY_FILE), dir.join("member.json.new"));
    let text = serde_json::to_vec(owner).map_err(|e| StartError::Identity(e.to_string()))?;
    std::fs::write(&draft, text).map_err(io(&draft))?;
    File::open(&draft)
        .and_then(|f| f.sync_all())
        .map_err(io(&draft))?;
    std::fs::rename(&draft, &path).map_err(io(&path))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io(dir))
}

/// Finds out of which cluster this is a new member: one that it founds, or one that lets it in.
///
/// `empty`: its disk holds nothing. Then it can't be a member that ran before: what that one voted and acknowledged is
/// gone, and to go on under its id could undo both.
async fn introduce(config: &Config, empty: bool) -> Result<(Owner, Membership), StartError> {
    let name = config.name.clone();
    if config.initial_cluster_state == "new" {
        let membership = Membership::found(&config.founders()?, &config.initial_cluster_token);
        let member_id = membership
            .find(&config.initial_advertise_peer_urls)
            .ok_or_else(|| StartError::Identity(format!("{name} is not among the founders")))?;
        return Ok((
            Owner {
                version: 1,
                cluster_id: membership.cluster_id,
                member_id,
                name,
            },
            membership,
        ));
    }
    let mine = &config.initial_advertise_peer_urls;
    let others: Vec<&String> = config
        .initial_cluster
        .iter()
        .map(|(_, url)| url)
        .filter(|u| !mine.contains(u))
        .collect();
    let mut why = "--initial-cluster names nobody else".to_owned();
    for _ in 0..JOIN_TRIES {
        for url in &others {
            match ask_members(url, 0).await {
                Ok(answer) => {
                    let members = answer.members.into_iter().map(|m| {
                        let learner = m.learner;
                        let (peer_urls, client_urls) = (m.peer_urls, m.client_urls);
                        (
                            m.id,
                            Member {
                                id: m.id,
                                name: m.name,
                                peer_urls,
                                client_urls,
                                learner,
                            },
                        )
                    });
                    let cluster_id = answer.cluster_id;
                    let known = Membership {
                        cluster_id,
                        members: members.collect(),
                        ..Membership::default()
                    };
                    if let Some(member_id) = known.find(mine) {
                        let ran = |m: &Member| !m.name.is_empty();
                        if empty && known.members.get(&member_id).is_some_and(ran) {
                            return Err(StartError::Join(format!(
                                "member {member_id:x} has run before, and {} does not hold its data: remove that member \
                                 from the cluster and add this machine as a new one",
                                config.data_dir.display()
                            )));
                        }
                        return Ok((
                            Owner {
                                version: 1,
                                cluster_id,
                                member_id,
                                name,
                            },
                            known,
                        ));
                    }
                    why = format!(
                        "{url} knows no member with the peer URLs {}; add it first",
                        mine.join(",")
                    );
                }
                Err(status) => why = format!("{url}: {}", status.message()),
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(StartError::Join(format!(
        "the cluster can't be joined: {why}"
    )))
}

struct Home {
    owner: Owner,
    membership: Membership,
    store: Store,
    consensus: Consensus,
    disk: Appender,
    synced: mpsc::UnboundedReceiver<Result<u64, WalError>>,
    state_dir: PathBuf,
}

/// Opens the data directory, or makes it one of a new member.
async fn settle(config: &Config) -> Result<Home, StartError> {
    let dir = &config.data_dir;
    let state_dir = dir.join("state");
    let wal_dir = dir.join("wal");
    let known = read_owner(dir)?;
    let (owner, introduced) = match known.clone() {
        Some(owner) => (owner, None),
        None => {
            for part in [&state_dir, &wal_dir] {
                if part.exists() {
                    std::fs::remove_dir_all(part).map_err(io(part))?;
                }
            }
            let (owner, membership) = introduce(config, true).await?;
            (owner, Some(membership))
        }
    };
    let mut store = Store::open(&state_dir)?;
    let founding = introduced.is_some() && config.initial_cluster_state == "new";
    if let (Some(membership), true) = (&introduced, founding) {
        let text =
            serde_json::to_vec(membership).map_err(|e| StartError::Identity(e.to_string()))?;
        store.set_meta(MEMBERSHIP_KEY, &text);
        // Founders begin behind an entry that all of them have, so that who comes later gets a snapshot.
        store.apply(1, 1, Vec::new());
        store.flush();
    }
    let membership = match introduced {
        Some(membership) => membership,
        // Who joined and was stopped before the first snapshot has no membership yet.
        None if store.applied().0 == 0 => introduce(config, false).await?.1,
        None => read_membership(&store)?,
    };
    let conf = if store.applied().0 == 0 {
        Default::default()
    } else {
        membership.conf_state()
    };
    let file_disk = FileDisk::new(&wal_dir).map_err(io(&wal_dir))?;
    let identity = Identity {
        cluster: owner.cluster_id,
        member: owner.member_id,
    };
    let (mut wal, recovered) = Wal::open(file_disk, identity)?;
    if let Some((file, length)) = &recovered.cut {
        report!("kvstore: the log {file} ended in a torn write and was cut to {length} bytes");
    }
    let restored = wal.restore(recovered, store.applied(), conf)?;
    let (tell, synced) = mpsc::unbounded_channel();
    let report = move |result| {
        // A reactor that is gone needs no report.
        let _ = tell.send(result);
    };
    let disk = Appender::start(wal, report).map_err(io(&wal_dir))?;
    if known.is_none() {
        write_owner(dir, &owner)?;
    }
    let boot = random_u64()?;
    let options = Options {
        election_ticks: config.election_ticks(),
        heartbeat_ticks: 1,
        seed: boot,
        boot_nonce: boot,
    };
    let consensus = Consensus::new(owner.member_id, restored, &options)?;
    Ok(Home {
        owner,
        membership,
        store,
        consensus,
        disk,
        synced,
        state_dir,
    })
}

fn warn_of_differences(config: &Config, owner: &Owner, membership: &Membership) {
    let Some(member) = membership.members.get(&owner.member_id) else {
        return;
    };
    if config.name != owner.name {
        report!(
            "kvstore: warning: --name {} is not obeyed: {} was joined as {}",
            config.name,
            config.data_dir.display(),
            owner.name
        );
    }
    let mut mine = config.initial_advertise_peer_urls.clone();
    mine.sort();
    let mut known = member.peer_urls.clone();
    known.sort();
    if mine != known {
        report!(
            "kvstore: warning: the cluster knows this member by {}, not by {}; use member update",
            known.join(","),
            mine.join(",")
        );
    }
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
