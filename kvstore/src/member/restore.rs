//! A new member's data directory, made from a snapshot before the member's first start.

use std::path::{Path, PathBuf};

use super::home::{found, lock, write_owner, Owner, STATE_DIR};
use super::{io, StartError};
use crate::config::Config;
use crate::etcd_file;
use crate::membership::Membership;

/// Makes the data directory of one of the members that found a cluster together, each from the same snapshot. It holds
/// nothing afterwards when this fails. Blocks.
///
/// # Errors
/// When the settings do not fit together, the directory holds something, or the snapshot can't be taken.
pub fn restore(
    config: &Config,
    snapshot: &Path,
    skip_hash_check: bool,
) -> Result<PathBuf, StartError> {
    let founders = config.founders()?;
    let membership = Membership::found(&founders, &config.initial_cluster_token);
    let member_id = membership
        .find(&config.initial_advertise_peer_urls)
        .ok_or_else(|| {
            StartError::Identity(format!("{} is not among the founders", config.name))
        })?;
    let dir = &config.data_dir;
    let (there, used) = match std::fs::read_dir(dir) {
        Ok(mut entries) => (true, entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (false, false),
        Err(e) => return Err(io(dir)(e)),
    };
    if used {
        return Err(StartError::Identity(format!(
            "data-dir \"{}\" is not empty: a snapshot is restored into a new directory",
            dir.display()
        )));
    }
    let reader = etcd_file::open(snapshot, skip_hash_check)?;
    let _lock = lock(dir)?;
    let owner = Owner::new(membership.cluster_id, member_id, config.name.clone());
    let made = etcd_file::import(&reader, &dir.join(STATE_DIR))
        .map_err(StartError::from)
        .and_then(|mut store| found(&mut store, &membership))
        .and_then(|()| write_owner(dir, &owner));
    if let Err(error) = made {
        // Half a state must not be taken for one, nor found an empty cluster.
        clear(dir).map_err(io(dir))?;
        if !there {
            std::fs::remove_dir(dir).map_err(io(dir))?;
        }
        return Err(error);
    }
    Ok(dir.clone())
}

fn clear(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
