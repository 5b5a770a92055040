//! The corruption check: at the start against the others, and again and again by whoever leads.

use std::time::Duration;

use futures::future::join_all;
use tonic::Status;
use tracing::{error, warn};

use super::StartError;
use crate::apply::Store;
use crate::command::Command;
use crate::corruption::{find_corrupt, find_different};
use crate::etcd_file::{hash_keys, KeysHash};
use crate::handle::Handle;
use crate::membership::Membership;
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmRequest, AlarmType};
use crate::peer::Dialer;
use crate::report::hex;

/// How long a member may take for its sum.
const PATIENCE: Duration = Duration::from_secs(7);

/// Compares the others' keys with this member's, and raises CORRUPT for the first that differs; while this one leads.
pub(super) async fn run(handle: Handle, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !handle.is_leader() {
            continue;
        }
        if let Err(status) = check(&handle).await {
            warn!(error = status.message(), "members could not be compared");
        }
    }
}

async fn check(handle: &Handle) -> Result<(), Status> {
    let me = handle.facts().member_id;
    let mine = handle.hash_keys(0).await?;
    let (cluster, others) = {
        let core = handle.core()?;
        let ids = core.membership.members.keys().filter(|id| **id != me);
        let others: Vec<_> = ids.map(|id| (*id, core.peer_urls(*id))).collect();
        (core.membership.cluster_id, others)
    };
    let theirs = ask(handle.dialer(), cluster, others, mine.revision).await;
    handle.linearize().await?;
    let later = handle.hash_keys(0).await?;
    let Some((member_id, why)) = find_corrupt(me, mine, later, &theirs) else {
        return Ok(());
    };
    error!(
        member_id = %hex(member_id),
        alarm = "CORRUPT",
        revision = mine.revision,
        error = why,
        "a member does not hold what it should"
    );
    let request = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id,
        alarm: AlarmType::Corrupt.into(),
    };
    handle.propose_capably(Command::Alarm(request)).await?;
    Ok(())
}

/// Compares this member's keys, as they were saved last, with the others', who serve already.
///
/// # Errors
/// When one holds something else.
pub(super) async fn before_serving(
    store: &Store,
    membership: &Membership,
    me: u64,
    dialer: &Dialer,
) -> Result<(), StartError> {
    let export = store.export();
    let sum = tokio::task::spawn_blocking(move || hash_keys(export.view(), 0, &|| true)).await;
    let failed = |why: String| StartError::Corrupt(format!("the own keys can't be hashed: {why}"));
    let mine = sum
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(e.to_string()))?;
    let others = membership.members.values().filter(|m| m.id != me);
    let others = others.map(|m| (m.id, m.peer_urls.clone())).collect();
    let theirs = ask(dialer, membership.cluster_id, others, mine.revision).await;
    let different = find_different(mine, &theirs);
    if different.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = different.iter().map(|id| format!("{id:x}")).collect();
    Err(StartError::Corrupt(format!(
        "{me:x} found data inconsistency with peers: up to revision {} its keys have the hash {}, those of {} another",
        mine.revision,
        mine.hash,
        names.join(", ")
    )))
}

/// The sums of those who have one.
async fn ask(
    dialer: &Dialer,
    cluster: u64,
    others: Vec<(u64, Vec<String>)>,
    revision: i64,
) -> Vec<(u64, KeysHash)> {
    let asked = others.into_iter().map(|(id, urls)| async move {
        for url in &urls {
            match tokio::time::timeout(PATIENCE, dialer.ask_hash(url, cluster, revision)).await {
                Ok(Ok(sum)) => return Some((id, sum)),
                Ok(Err(status)) => {
                    warn!(
                        remote_peer_id = %hex(id),
                        url,
                        revision,
                        error = status.message(),
                        "a member gives no hash of its keys"
                    );
                }
                Err(_) => {
                    warn!(
                        remote_peer_id = %hex(id),
                        url,
                        revision,
                        "a member takes too long for a hash of its keys"
                    );
                }
            }
        }
        None
    });
    join_all(asked).await.into_iter().flatten().collect()
}
