//! A member's data directory: founding, joining, or coming back to it.
//!
//! Not here: what others say of a member without one (`introduction`).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tracing::warn;

use super::alone::{alone, Alone};
use super::introduction::introduce;
use super::{io, StartError};
use crate::apply::Store;
use crate::config::Config;
use crate::consensus::{Append, Consensus, Options};
use crate::disk::{make_directory, sync_directory, Appender, FileDisk};
use crate::handle::random_u64;
use crate::membership::Membership;
use crate::peer::Dialer;
use crate::reactor::{read_membership, MEMBERSHIP_KEY};
use crate::report::hex;
use crate::space::Space;
use crate::wal::{Identity, Wal, WalError};

const IDENTITY_FILE: &str = "member.json";
pub(super) const STATE_DIR: &str = "state";

/// What a data directory says of its owner; it outlives every flag.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Owner {
    pub version: u32,
    pub cluster_id: u64,
    pub member_id: u64,
    pub name: String,
}

impl Owner {
    pub fn new(cluster_id: u64, member_id: u64, name: String) -> Self {
        Self {
            version: 1,
            cluster_id,
            member_id,
            name,
        }
    }
}

pub(super) fn lock(dir: &Path) -> Result<File, StartError> {
    make_directory(dir).map_err(io(dir))?;
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
pub(super) fn write_owner(dir: &Path, owner: &Owner) -> Result<(), StartError> {
    let (path, draft) = (dir.join(IDENTITY_FILE), dir.join("member.json.new"));
    let text = serde_json::to_vec(owner).map_err(|e| StartError::Identity(e.to_string()))?;
    std::fs::write(&draft, text).map_err(io(&draft))?;
    File::open(&draft)
        .and_then(|f| f.sync_all())
        .map_err(io(&draft))?;
    std::fs::rename(&draft, &path).map_err(io(&path))?;
    sync_directory(dir).map_err(io(dir))
}

/// Begins a founder's state, be it empty or from a snapshot.
pub(super) fn found(store: &mut Store, membership: &Membership) -> Result<(), StartError> {
    let text = serde_json::to_vec(membership).map_err(|e| StartError::Identity(e.to_string()))?;
    store.set_meta(MEMBERSHIP_KEY, &text);
    // Founders begin behind an entry that all of them have, so that who comes later gets a snapshot.
    store.apply(1, 1, Vec::new());
    Ok(store.flush()?)
}

pub(super) struct Home {
    pub owner: Owner,
    pub membership: Membership,
    pub store: Store,
    pub consensus: Consensus,
    pub disk: Appender,
    pub synced: mpsc::UnboundedReceiver<Result<u64, WalError>>,
    pub state_dir: PathBuf,
    pub space: Space,
}

/// Opens the data directory, or makes it one of a new member.
pub(super) async fn settle(config: &Config, dialer: &Dialer) -> Result<Home, StartError> {
    let dir = &config.data_dir;
    let state_dir = dir.join(STATE_DIR);
    let wal_dir = dir.join("wal");
    let mut space = Space::open(dir, config.quota_backend_bytes).map_err(io(dir))?;
    let known = read_owner(dir)?;
    let (owner, introduced) = match known.clone() {
        Some(owner) => (owner, None),
        None => {
            for part in [&state_dir, &wal_dir] {
                if part.exists() {
                    std::fs::remove_dir_all(part).map_err(io(part))?;
                }
            }
            let (owner, membership) = introduce(config, dialer, true).await?;
            (owner, Some(membership))
        }
    };
    let mut store = Store::open(&state_dir)?;
    let founding = introduced.is_some() && config.initial_cluster_state == "new";
    if let (Some(membership), true) = (&introduced, founding) {
        found(&mut store, membership)?;
    }
    let membership = match introduced {
        Some(membership) => membership,
        // Who joined and was stopped before the first snapshot has no membership yet.
        None if store.applied().0 == 0 => introduce(config, dialer, false).await?.1,
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
        warn!(path = %file, bytes = length, "the log ended in a torn write and was cut");
    }
    let mut restored = wal.restore(recovered, store.applied(), conf)?;
    if config.force_new_cluster && known.is_some() {
        if let Some(alone) = alone(owner.member_id, &restored, &membership)? {
            tell(&alone, &owner);
            wal.append(&[Append {
                number: 0,
                hard_state: alone.hard_state,
                snapshot: None,
                entries: alone.entries.clone(),
            }])?;
            restored = alone.over(restored);
        } else {
            warn!(
                local_member_id = %hex(owner.member_id),
                "--force-new-cluster has no effect: this is the only member; start without it"
            );
        }
    }
    let (tell, synced) = mpsc::unbounded_channel();
    let report = move |result| {
        // A reactor that is gone needs no report.
        let _ = tell.send(result);
    };
    let disk = Appender::start(wal, report).map_err(io(&wal_dir))?;
    if known.is_none() {
        write_owner(dir, &owner)?;
    }
    space.reserve().map_err(io(dir))?;
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
        space,
    })
}

fn tell(alone: &Alone, owner: &Owner) {
    let gone: Vec<String> = alone.gone.iter().map(|id| format!("{id:x}")).collect();
    warn!(
        local_member_id = %hex(owner.member_id),
        cluster_id = %hex(owner.cluster_id),
        commit_index = alone.hard_state.commit,
        removed_member_ids = gone.join(","),
        "--force-new-cluster: this member goes on alone, the others are taken out"
    );
    if alone.dropped > 0 {
        warn!(
            entries = alone.dropped,
            "--force-new-cluster: the log's last entries are dropped: a change of the membership that nobody may have \
             agreed on, and what follows it"
        );
    }
    warn!("start without --force-new-cluster from now on, and never start the others again");
}

pub(super) fn warn_of_differences(config: &Config, owner: &Owner, membership: &Membership) {
    let Some(member) = membership.members.get(&owner.member_id) else {
        return;
    };
    if config.name != owner.name {
        warn!(
            given = config.name,
            name = owner.name,
            data_dir = %config.data_dir.display(),
            "--name is not obeyed: the member joined under another"
        );
    }
    let mut mine = config.initial_advertise_peer_urls.clone();
    mine.sort();
    let mut known = member.peer_urls.clone();
    known.sort();
    if mine != known {
        warn!(
            known_peer_urls = known.join(","),
            given_peer_urls = mine.join(","),
            "the cluster knows this member by other URLs; use member update"
        );
    }
}
