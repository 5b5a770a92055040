//! A member's data directory: founding, joining, or coming back to it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{io, StartError};
use crate::apply::Store;
use crate::config::Config;
use crate::consensus::{Consensus, Options};
use crate::disk::{Appender, FileDisk};
use crate::handle::random_u64;
use crate::membership::{Member, Membership};
use crate::peer::ask_members;
use crate::reactor::{read_membership, MEMBERSHIP_KEY};
use crate::report;
use crate::wal::{Identity, Wal, WalError};

/// How long the members of an existing cluster are asked for its membership.
const JOIN_TRIES: u32 = 30;
const JOIN_PAUSE: Duration = Duration::from_secs(1);
const IDENTITY_FILE: &str = "member.json";

/// What a data directory says of its owner; it outlives every flag.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Owner {
    version: u32,
    pub cluster_id: u64,
    pub member_id: u64,
    pub name: String,
}

pub(super) fn lock(dir: &Path) -> Result<File, StartError> {
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

pub(super) struct Home {
    pub owner: Owner,
    pub membership: Membership,
    pub store: Store,
    pub consensus: Consensus,
    pub disk: Appender,
    pub synced: mpsc::UnboundedReceiver<Result<u64, WalError>>,
    pub state_dir: PathBuf,
}

/// Opens the data directory, or makes it one of a new member.
pub(super) async fn settle(config: &Config) -> Result<Home, StartError> {
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

pub(super) fn warn_of_differences(config: &Config, owner: &Owner, membership: &Membership) {
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
