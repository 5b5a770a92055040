//! Whether members hold the same (etcd's corruption check): what their sums say of each other.
//!
//! Pure. Not here: how a sum is made (`etcd_file`), who asks for it (`member`), and what an alarm does (`alarm`).

use crate::etcd_file::KeysHash;

/// Of whom a check by the leader finds that it does not hold what it should, and why; the first that it finds.
///
/// `mine` is the leader's sum, which each of `others` was asked for up to the same revision; `later` is the leader's once
/// all that was committed meanwhile is applied.
#[must_use]
pub fn find_corrupt(
    leader: u64,
    mine: KeysHash,
    later: KeysHash,
    others: &[(u64, KeysHash)],
) -> Option<(u64, String)> {
    let same_state = mine.revision == later.revision && mine.compacted == later.compacted;
    if same_state && mine.hash != later.hash {
        let why = format!(
            "its keys up to revision {} have the hash {}, and had {}",
            mine.revision, later.hash, mine.hash
        );
        return Some((leader, why));
    }
    others.iter().find_map(|(id, theirs)| {
        let why = if theirs.current > later.current {
            format!(
                "it is at revision {}, and its leader at {}",
                theirs.current, later.current
            )
        } else if theirs.compacted > later.compacted {
            format!(
                "it is compacted up to revision {}, and its leader up to {}",
                theirs.compacted, later.compacted
            )
        } else if theirs.compacted == mine.compacted && theirs.hash != mine.hash {
            format!(
                "its keys up to revision {} have the hash {}, and its leader's {}",
                mine.revision, theirs.hash, mine.hash
            )
        } else {
            return None;
        };
        Some((*id, why))
    })
}

/// Which other members hold something else than this one, whose sum they were asked for; before it serves anybody.
#[must_use]
pub fn find_different(mine: KeysHash, others: &[(u64, KeysHash)]) -> Vec<u64> {
    let different =
        |theirs: &KeysHash| theirs.compacted == mine.compacted && theirs.hash != mine.hash;
    let found = others.iter().filter(|(_, theirs)| different(theirs));
    found.map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: KeysHash = KeysHash {
        hash: 7,
        revision: 10,
        compacted: 3,
        current: 10,
    };

    fn suspect(mine: KeysHash, later: KeysHash, theirs: KeysHash) -> Option<u64> {
        find_corrupt(1, mine, later, &[(2, SUM), (3, theirs)]).map(|(id, _)| id)
    }

    #[test]
    fn members_that_hold_the_same_are_sound_also_where_one_is_behind_or_ahead() {
        let later = KeysHash {
            hash: 8,
            revision: 12,
            current: 12,
            ..SUM
        };
        let ahead = KeysHash { current: 11, ..SUM };
        let not_compacted = KeysHash {
            hash: 9,
            compacted: 2,
            ..SUM
        };
        for theirs in [SUM, ahead, not_compacted] {
            assert_eq!(suspect(SUM, later, theirs), None, "{theirs:?}");
        }
    }

    #[test]
    fn whoever_holds_something_else_is_found() {
        let other_hash = KeysHash { hash: 8, ..SUM };
        let beyond = KeysHash { current: 11, ..SUM };
        let compacted = KeysHash {
            compacted: 4,
            ..SUM
        };
        for theirs in [other_hash, beyond, compacted] {
            assert_eq!(suspect(SUM, SUM, theirs), Some(3), "{theirs:?}");
        }
        assert_eq!(suspect(SUM, other_hash, SUM), Some(1), "the leader itself");
    }

    #[test]
    fn a_start_is_judged_by_members_that_are_compacted_alike() {
        let other_hash = KeysHash { hash: 8, ..SUM };
        let elsewhere = KeysHash {
            compacted: 4,
            ..other_hash
        };
        let others = [(1, SUM), (2, other_hash), (3, elsewhere)];
        assert_eq!(find_different(SUM, &others), [2]);
    }
}
