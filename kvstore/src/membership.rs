//! Who belongs to the cluster, as the applied log says: voters, learners, and ids that were removed for good.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command;
use crate::consensus::RaftChange;
use crate::errors::StoreError;
use crate::log::ConfState;
use crate::pb::etcd;
use crate::pb::peer::MemberInfo;

/// Learners that a cluster may have at a time (etcd's `--max-learners`).
const MAX_LEARNERS: usize = 1;
/// How long voters were connected when another may come (etcd's `HealthInterval`).
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// One member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub learner: bool,
    /// The newest version of log entries that it said it knows; 0 as long as it has not.
    #[serde(default)]
    pub log_version: u32,
}

/// A change of the membership, carried by a configuration entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Add(Member),
    Promote { id: u64 },
    Remove { id: u64 },
    Update { id: u64, peer_urls: Vec<String> },
}

impl Change {
    /// The member concerned.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            Self::Add(member) => member.id,
            Self::Promote { id } | Self::Remove { id } | Self::Update { id, .. } => *id,
        }
    }
}

/// The membership at one point of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub cluster_id: u64,
    pub members: BTreeMap<u64, Member>,
    pub removed: BTreeSet<u64>,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hash<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            h = (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    mix(h).max(1)
}

impl Membership {
    /// The membership of a cluster that is founded by these (name -> peer URLs): the same for each founder.
    #[must_use]
    pub fn found(founders: &BTreeMap<String, Vec<String>>, token: &str) -> Self {
        let mut members = BTreeMap::new();
        for (name, urls) in founders {
            let mut sorted = urls.clone();
            sorted.sort();
            let id = hash(
                sorted
                    .iter()
                    .map(String::as_bytes)
                    .chain([token.as_bytes()]),
            );
            let member = Member {
                id,
                name: name.clone(),
                peer_urls: sorted,
                ..Member::default()
            };
            members.insert(id, member);
        }
        let ids: Vec<[u8; 8]> = members.keys().map(|id| id.to_be_bytes()).collect();
        let cluster_id = hash(ids.iter().map(<[u8; 8]>::as_slice));
        Self {
            cluster_id,
            members,
            removed: BTreeSet::new(),
        }
    }

    /// The newest version of log entries that every member knows. Who never ran does not count: an older program would
    /// refuse such entries then.
    #[must_use]
    pub fn log_version(&self) -> u32 {
        let ran = self.members.values().filter(|m| !m.client_urls.is_empty());
        let versions = ran.map(|m| m.log_version.max(1));
        versions.min().unwrap_or(command::VERSION)
    }

    /// The id of the member with exactly these peer URLs.
    #[must_use]
    pub fn find(&self, peer_urls: &[String]) -> Option<u64> {
        let mut wanted = peer_urls.to_vec();
        wanted.sort();
        self.members
            .values()
            .find(|m| {
                let mut urls = m.peer_urls.clone();
                urls.sort();
                urls == wanted
            })
            .map(|m| m.id)
    }

    /// Says whether a change may be proposed; etcd's errors.
    ///
    /// # Errors
    /// For an unknown member, URLs in use, or too many learners.
    pub fn check(&self, change: &Change) -> Result<(), StoreError> {
        let in_use = |urls: &[String], except: u64| {
            let mut others = self.members.values().filter(|m| m.id != except);
            others.any(|m| m.peer_urls.iter().any(|url| urls.contains(url)))
        };
        match change {
            Change::Add(member) => {
                if member.peer_urls.is_empty() {
                    return Err(StoreError::BadPeerUrls);
                }
                if self.members.contains_key(&member.id) || self.removed.contains(&member.id) {
                    return Err(StoreError::MemberExists);
                }
                if in_use(&member.peer_urls, member.id) {
                    return Err(StoreError::PeerUrlExists);
                }
                let learners = self.members.values().filter(|m| m.learner).count();
                if member.learner && learners >= MAX_LEARNERS {
                    return Err(StoreError::TooManyLearners);
                }
            }
            Change::Promote { id } => {
                if !self
                    .members
                    .get(id)
                    .ok_or(StoreError::MemberNotFound)?
                    .learner
                {
                    return Err(StoreError::NotLearner);
                }
            }
            Change::Remove { id } => {
                let member = self.members.get(id).ok_or(StoreError::MemberNotFound)?;
                if !member.learner && self.voters().count() == 1 {
                    return Err(StoreError::NotEnoughStarted);
                }
            }
            Change::Update { id, peer_urls } => {
                if !self.members.contains_key(id) {
                    return Err(StoreError::MemberNotFound);
                }
                if peer_urls.is_empty() {
                    return Err(StoreError::BadPeerUrls);
                }
                if in_use(peer_urls, *id) {
                    return Err(StoreError::PeerUrlExists);
                }
            }
        }
        Ok(())
    }

    /// Says whether a change leaves a quorum of members that have started (told their name), as etcd's
    /// `--strict-reconfig-check` asks. Judged where the change is proposed, not where it is applied.
    ///
    /// # Errors
    /// `NotEnoughStarted`.
    pub fn check_started(&self, change: &Change) -> Result<(), StoreError> {
        let concerned = self.members.get(&change.id());
        let others = self
            .members
            .values()
            .filter(|m| !m.learner && m.id != change.id());
        let (mut all, mut started) = others.fold((0usize, 0usize), |(all, started), member| {
            (all + 1, started + usize::from(!member.name.is_empty()))
        });
        match change {
            Change::Add(member) if member.learner => return Ok(()),
            Change::Update { .. } => return Ok(()),
            Change::Remove { .. } if concerned.is_none_or(|m| m.learner) => return Ok(()),
            // A cluster of one may grow, although its second member can't have started yet.
            Change::Add(_) if (all, started) == (1, 1) => return Ok(()),
            Change::Add(_) => all += 1,
            // A learner in sync has started.
            Change::Promote { .. } => (all, started) = (all + 1, started + 1),
            Change::Remove { .. } => {}
        }
        if started < all / 2 + 1 {
            return Err(StoreError::NotEnoughStarted);
        }
        Ok(())
    }

    /// Says whether enough voters are connected for a member to come, or stay so when one goes; `connected` says of each
    /// voter for how long it was, None if it is not. One that is down may always go. Who comes counts as down, and
    /// with one voter alone always may. Etcd asks that voters were connected for a while before a learner comes too;
    /// a learner changes no quorum.
    ///
    /// # Errors
    /// `Unhealthy`.
    pub fn check_connected(
        &self,
        change: &Change,
        connected: impl Fn(u64) -> Option<Duration>,
    ) -> Result<(), StoreError> {
        let all = self.voters().count();
        let up = |least| {
            let long = |id: &u64| connected(*id).is_some_and(|time| time >= least);
            self.voters().filter(long).count()
        };
        let healthy = match change {
            Change::Add(_) if all == 1 => true,
            Change::Add(member) => {
                let least = if member.learner {
                    Duration::ZERO
                } else {
                    HEALTHY_AFTER
                };
                up(least) > all.div_ceil(2)
            }
            Change::Remove { id } => {
                let votes = self.voters().any(|voter| voter == *id);
                !votes || connected(*id).is_none() || up(Duration::ZERO) > 1 + (all - 1) / 2
            }
            Change::Promote { .. } | Change::Update { .. } => true,
        };
        healthy.then_some(()).ok_or(StoreError::Unhealthy)
    }

    /// Applies a committed change.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Add(member) => {
                self.members.insert(member.id, member.clone());
            }
            Change::Promote { id } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.learner = false;
                }
            }
            Change::Remove { id } => {
                self.members.remove(id);
                self.removed.insert(*id);
            }
            Change::Update { id, peer_urls } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.peer_urls.clone_from(peer_urls);
                }
            }
        }
    }

    /// What a change means for raft.
    #[must_use]
    pub fn raft_change(&self, change: &Change) -> RaftChange {
        let learner = match change {
            Change::Add(member) => member.learner,
            Change::Update { id, .. } => self.members.get(id).is_some_and(|m| m.learner),
            Change::Promote { .. } | Change::Remove { .. } => false,
        };
        match change {
            Change::Remove { id } => RaftChange::Remove(*id),
            _ if learner => RaftChange::AddLearner(change.id()),
            _ => RaftChange::AddVoter(change.id()),
        }
    }

    pub fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.values().filter(|m| !m.learner).map(|m| m.id)
    }

    /// The same for the consensus.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        let learners = self
            .members
            .values()
            .filter(|m| m.learner)
            .map(|m| m.id)
            .collect();
        ConfState {
            voters: self.voters().collect(),
            learners,
        }
    }

    /// As clients see it.
    #[must_use]
    pub fn list(&self) -> Vec<etcd::Member> {
        let show = |m: &Member| etcd::Member {
            id: m.id,
            name: m.name.clone(),
            peer_ur_ls: m.peer_urls.clone(),
            client_ur_ls: m.client_urls.clone(),
            is_learner: m.learner,
        };
        self.members.values().map(show).collect()
    }

    /// As peers see it.
    #[must_use]
    pub fn infos(&self) -> Vec<MemberInfo> {
        let show = |m: &Member| MemberInfo {
            id: m.id,
            name: m.name.clone(),
            peer_urls: m.peer_urls.clone(),
            client_urls: m.client_urls.clone(),
            learner: m.learner,
        };
        self.members.values().map(show).collect()
    }
}

#[cfg(test)]
mod tests;
