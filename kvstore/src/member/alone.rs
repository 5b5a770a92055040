//! `--force-new-cluster`: a member whose cluster is dead goes on alone, with its data, its id and the cluster's.
//!
//! What the others are is taken out of the log's end by changes of the membership, as if all had agreed on them.

use crate::consensus::{RaftChange, Restored};
use crate::log::{Entry, HardState};
use crate::membership::{Change, Membership};
use crate::reactor::{change_entry, read_change};

use super::StartError;

/// What it takes, and what is told of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alone {
    /// To be put into the log, over whatever it has from the first of them on.
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
    /// The members that are taken out.
    pub gone: Vec<u64>,
    /// Entries from the first change of the membership on that nobody knows to have been agreed on.
    pub dropped: usize,
}

/// What makes `me` a cluster of one; None where it is one. `membership`: as of what is applied.
///
/// # Errors
/// When the member was removed from its cluster, or never got to know that.
pub(super) fn alone(
    me: u64,
    restored: &Restored,
    membership: &Membership,
) -> Result<Option<Alone>, StartError> {
    if restored.applied == 0 {
        return Err(StartError::Identity(
            "--force-new-cluster: this member never got the data of its cluster".to_owned(),
        ));
    }
    let hard_state = restored.hard_state;
    let committed = hard_state.commit.max(restored.applied);
    let mut membership = membership.clone();
    // That an entry is committed is noted with the next one, or never. So writes that were acknowledged may be among those
    // behind, and all are kept; but for what would change who is a member, and what comes after that.
    let mut kept = restored.applied;
    for entry in restored
        .entries
        .iter()
        .filter(|e| e.index > restored.applied)
    {
        let change = read_change(entry).map_err(StartError::Corrupt)?;
        if change.is_some() && entry.index > committed {
            break;
        }
        kept = entry.index;
        if let Some(change) = change.filter(|change| membership.check(change).is_ok()) {
            membership.apply(&change);
        }
    }
    let Some(this) = membership.members.get(&me) else {
        return Err(StartError::Identity(
            "--force-new-cluster: this member was removed from its cluster".to_owned(),
        ));
    };
    let gone: Vec<u64> = membership
        .members
        .keys()
        .copied()
        .filter(|id| *id != me)
        .collect();
    if gone.is_empty() {
        return Ok(None);
    }
    let promotion = this.learner.then_some(Change::Promote { id: me });
    let removals = gone.iter().map(|id| Change::Remove { id: *id });
    let changes = promotion.into_iter().chain(removals);
    // A term that no other member has entries of.
    let term = hard_state.term + 1;
    let entries: Vec<Entry> = (kept + 1..)
        .zip(changes)
        .map(|(index, change)| {
            let hint = match &change {
                Change::Remove { id } => RaftChange::Remove(*id),
                other => RaftChange::AddVoter(other.id()),
            };
            change_entry((index, term), hint, change)
        })
        .collect();
    let dropped = restored.entries.iter().filter(|e| e.index > kept);
    Ok(Some(Alone {
        dropped: dropped.count(),
        hard_state: HardState {
            term,
            vote: me,
            commit: kept + entries.len() as u64,
        },
        entries,
        gone,
    }))
}

impl Alone {
    /// The log as it is once this is in it.
    pub(super) fn over(&self, mut restored: Restored) -> Restored {
        let first = self.entries.first().map_or(u64::MAX, |e| e.index);
        restored.entries.retain(|e| e.index < first);
        restored.entries.extend_from_slice(&self.entries);
        restored.hard_state = self.hard_state;
        restored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    fn membership(ids: &[u64], learner: u64) -> Membership {
        let member = |id: u64| Member {
            id,
            peer_urls: vec![format!("http://h:{id}")],
            learner: id == learner,
            ..Member::default()
        };
        Membership {
            members: ids.iter().map(|id| (*id, member(*id))).collect(),
            ..Membership::default()
        }
    }

    /// Applied up to 4, committed up to 6, and 7 and 8 are there.
    fn restored(committed: Vec<Entry>) -> Restored {
        let mut entries: Vec<Entry> = (5..=8)
            .map(|index| Entry {
                index,
                term: 2,
                ..Entry::default()
            })
            .collect();
        for entry in committed {
            let at = usize::try_from(entry.index - 5).unwrap();
            entries[at] = entry;
        }
        Restored {
            hard_state: HardState {
                term: 3,
                vote: 2,
                commit: 6,
            },
            applied: 4,
            start: (4, 2),
            entries,
            ..Restored::default()
        }
    }

    #[test]
    fn the_others_are_taken_out_and_all_writes_are_kept() {
        let found = restored(Vec::new());
        let made = alone(1, &found, &membership(&[1, 2, 3], 1))
            .unwrap()
            .unwrap();
        assert_eq!((made.gone.as_slice(), made.dropped), ([2, 3].as_slice(), 0));
        let hard_state = HardState {
            term: 4,
            vote: 1,
            commit: 11,
        };
        assert_eq!(made.hard_state, hard_state);
        let restored = made.over(found);
        let log: Vec<_> = restored.entries.iter().map(|e| (e.index, e.term)).collect();
        assert_eq!(log[..4], [(5, 2), (6, 2), (7, 2), (8, 2)]);
        assert_eq!(log[4..], [(9, 4), (10, 4), (11, 4)]);
        let changes = restored.entries[4..]
            .iter()
            .map(|e| read_change(e).unwrap().unwrap());
        let wanted = [
            Change::Promote { id: 1 },
            Change::Remove { id: 2 },
            Change::Remove { id: 3 },
        ];
        assert!(changes.eq(wanted));
    }

    #[test]
    fn changes_that_are_agreed_on_and_not_applied_count() {
        let left = change_entry((6, 2), RaftChange::Remove(3), Change::Remove { id: 3 });
        let made = alone(1, &restored(vec![left]), &membership(&[1, 2, 3], 0));
        assert_eq!(made.unwrap().unwrap().gone, [2]);
        // The seventh is not agreed on.
        let left = change_entry((7, 2), RaftChange::Remove(1), Change::Remove { id: 1 });
        let made = alone(1, &restored(vec![left]), &membership(&[1, 2], 0));
        let made = made.unwrap().unwrap();
        assert_eq!((made.gone.as_slice(), made.dropped), ([2].as_slice(), 2));
        assert_eq!((made.entries[0].index, made.hard_state.commit), (7, 7));
        let left = change_entry((5, 2), RaftChange::Remove(1), Change::Remove { id: 1 });
        let refused = alone(1, &restored(vec![left]), &membership(&[1, 2], 0)).unwrap_err();
        assert!(refused.to_string().contains("was removed"), "{refused}");
    }

    #[test]
    fn one_alone_stays_as_it_is() {
        let made = alone(1, &restored(Vec::new()), &membership(&[1], 0)).unwrap();
        assert_eq!(made, None);
    }
}
