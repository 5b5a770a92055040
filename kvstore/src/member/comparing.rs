//! Etcd's `CompactHashCheck`: each member notes a hash at each compaction, and whoever leads compares what was noted.

use std::time::Duration;

use futures::future::join_all;
use tonic::Status;
use tracing::{error, warn};

use crate::apply::Noted;
use crate::command::Command;
use crate::corruption::{compare_noted, Comparison};
use crate::handle::Handle;
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmRequest, AlarmType};
use crate::report::hex;

/// How long a member may take to say what it noted.
const PATIENCE: Duration = Duration::from_secs(7);
/// What an alarm is of when nobody knows which member is wrong.
const WHOLE_CLUSTER: u64 = 0;

/// Notes the hash of each compaction, also of the one that the state comes with; of those that follow each other faster
/// than they can be hashed, the last.
pub(super) async fn note(handle: Handle) {
    loop {
        if let Err(status) = note_last(&handle).await {
            warn!(
                error = status.message(),
                "there is no hash of the last compaction"
            );
        }
        handle.compactions().notified().await;
    }
}

async fn note_last(handle: &Handle) -> Result<(), Status> {
    let Some(revision) = handle.core()?.store()?.to_note() else {
        return Ok(());
    };
    if let Some(noted) = handle.hash_compacted(revision).await? {
        handle.core()?.store_mut()?.note(noted);
    }
    Ok(())
}

/// Compares what the members noted, while this one leads, and raises CORRUPT for those whom most contradict, or for the
/// whole cluster where no hash is that of most.
pub(super) async fn compare(handle: Handle, every: Duration) {
    let mut checked = 0;
    loop {
        tokio::time::sleep(every).await;
        if !handle.is_leader() {
            continue;
        }
        match compare_once(&handle, checked).await {
            Ok(reached) => checked = reached,
            Err(status) => warn!(
                error = status.message(),
                "hashes of compactions could not be compared"
            ),
        }
    }
}

/// The revision up to which all members are known to have noted the same.
async fn compare_once(handle: &Handle, checked: i64) -> Result<i64, Status> {
    let me = handle.facts().member_id;
    let (cluster, mine, others) = {
        let core = handle.core()?;
        let ids = core.membership.members.keys().filter(|id| **id != me);
        let others: Vec<_> = ids.map(|id| (*id, core.peer_urls(*id))).collect();
        let mine = core.store()?.noted().to_vec();
        (core.membership.cluster_id, mine, others)
    };
    if mine.first().is_none_or(|newest| newest.revision <= checked) {
        return Ok(checked);
    }
    let asked = others
        .into_iter()
        .map(|(id, urls)| async move { (id, ask(handle, cluster, id, &urls).await) });
    let others = join_all(asked).await;
    match compare_noted(me, &mine, &others, checked) {
        Comparison::Alike(revision) => Ok(revision),
        Comparison::Unknown => Ok(checked),
        Comparison::Different {
            revision,
            noted,
            mut wrong,
        } => {
            if wrong.is_empty() {
                wrong.push(WHOLE_CLUSTER);
            }
            for member_id in wrong {
                raise(handle, member_id, revision, &noted).await?;
            }
            Ok(checked)
        }
    }
}

async fn raise(
    handle: &Handle,
    member_id: u64,
    revision: i64,
    noted: &std::collections::BTreeMap<u32, Vec<u64>>,
) -> Result<(), Status> {
    let kind = AlarmType::Corrupt;
    if handle.core()?.store()?.alarms().is_of(member_id, kind) {
        return Ok(());
    }
    let of = |(hash, ids): (&u32, &Vec<u64>)| {
        let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
        format!("{hash} at {}", ids.join(", "))
    };
    let hashes: Vec<String> = noted.iter().map(of).collect();
    error!(
        member_id = %hex(member_id),
        alarm = "CORRUPT",
        revision,
        hashes = hashes.join("; "),
        "after a compaction {}",
        match member_id {
            WHOLE_CLUSTER => "nobody knows which members do not hold what they should",
            _ => "a member does not hold what it should",
        }
    );
    let request = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id,
        alarm: kind.into(),
    };
    handle.propose_capably(Command::Alarm(request)).await?;
    Ok(())
}

/// What a member noted, if it says so at one of its URLs.
async fn ask(handle: &Handle, cluster: u64, id: u64, urls: &[String]) -> Option<Vec<Noted>> {
    for url in urls {
        let asked = handle.dialer().ask_noted(url, cluster);
        let why = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(noted)) => return Some(noted),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "it takes too long".to_owned(),
        };
        warn!(
            remote_peer_id = %hex(id),
            url,
            error = why,
            "a member does not say what it noted at compactions"
        );
    }
    None
}
