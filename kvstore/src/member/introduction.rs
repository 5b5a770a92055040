//! What a member with nothing on its disk belongs to, as its flags and the others say.

use std::time::Duration;

use futures::future::join_all;

use super::home::Owner;
use super::StartError;
use crate::config::Config;
use crate::membership::{Member, Membership};
use crate::pb::peer::MembersResponse;
use crate::peer::Dialer;

/// How long the members of an existing cluster are asked for its membership.
const JOIN_TRIES: u32 = 30;
const JOIN_PAUSE: Duration = Duration::from_secs(1);
/// How long a founder waits for what the other founders know of it (etcd's bootstrap timeout).
const FOUNDERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Finds out of which cluster this is a new member: one that it founds, or one that lets it in.
///
/// `empty`: its disk holds nothing. Then it can't be a member that ran before: what that one voted and acknowledged is
/// gone, and to go on under its id could undo both.
pub(super) async fn introduce(
    config: &Config,
    dialer: &Dialer,
    empty: bool,
) -> Result<(Owner, Membership), StartError> {
    let (member_id, membership) = if config.initial_cluster_state == "new" {
        found(config, dialer, empty).await?
    } else {
        join(config, dialer, empty).await?
    };
    let owner = Owner::new(membership.cluster_id, member_id, config.name.clone());
    Ok((owner, membership))
}

async fn found(
    config: &Config,
    dialer: &Dialer,
    empty: bool,
) -> Result<(u64, Membership), StartError> {
    let membership = Membership::found(&config.founders()?, &config.initial_cluster_token);
    let mine = &config.initial_advertise_peer_urls;
    let member_id = membership.find(mine).ok_or_else(|| {
        StartError::Identity(format!("{} is not among the founders", config.name))
    })?;
    let others = membership.members.values().filter(|m| m.id != member_id);
    let urls = others.flat_map(|m| &m.peer_urls);
    let answers = join_all(urls.map(|url| async {
        tokio::time::timeout(FOUNDERS_TIMEOUT, dialer.ask_members(url, 0)).await
    }));
    // Who is not there yet, or not for this cluster, knows nothing of this member.
    let answers = answers.await.into_iter().flatten().flatten();
    let mut known = answers.flat_map(|answer| answer.members);
    if empty && known.any(|m| m.id == member_id && !m.client_urls.is_empty()) {
        return Err(ran_before(config, member_id));
    }
    Ok((member_id, membership))
}

async fn join(
    config: &Config,
    dialer: &Dialer,
    empty: bool,
) -> Result<(u64, Membership), StartError> {
    let mine = &config.initial_advertise_peer_urls;
    let all = config.initial_cluster.iter().map(|(_, url)| url);
    let others: Vec<&String> = all.filter(|url| !mine.contains(url)).collect();
    let mut why = "--initial-cluster names nobody else".to_owned();
    for _ in 0..JOIN_TRIES {
        for url in &others {
            match dialer.ask_members(url, 0).await {
                Ok(answer) => {
                    let known = told(answer);
                    if let Some(member_id) = known.find(mine) {
                        let ran = |m: &Member| !m.name.is_empty();
                        if empty && known.members.get(&member_id).is_some_and(ran) {
                            return Err(ran_before(config, member_id));
                        }
                        return Ok((member_id, known));
                    }
                    let mine = mine.join(",");
                    why = format!("{url} knows no member with the peer URLs {mine}; add it first");
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

/// The membership that another member told of.
fn told(answer: MembersResponse) -> Membership {
    let members = answer.members.into_iter().map(|m| Member {
        id: m.id,
        name: m.name,
        peer_urls: m.peer_urls,
        client_urls: m.client_urls,
        learner: m.learner,
        log_version: 0,
    });
    Membership {
        cluster_id: answer.cluster_id,
        members: members.map(|m| (m.id, m)).collect(),
        ..Membership::default()
    }
}

fn ran_before(config: &Config, member_id: u64) -> StartError {
    StartError::Join(format!(
        "member {member_id:x} has already been bootstrapped: it has run before, and {} does not hold its data; remove that \
         member from the cluster and add this machine as a new one",
        config.data_dir.display()
    ))
}
