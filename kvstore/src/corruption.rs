//! Whether members hold the same (etcd's corruption check): what their sums say of each other.
//!
//! Pure. Not here: how a sum is made (`etcd_file`), who asks for it (`member`), and what an alarm does (`alarm`).

use std::collections::BTreeMap;

use crate::apply::Noted;
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

/// What members noted at compactions says of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Comparison {
    /// All noted the same for this revision.
    Alike(i64),
    /// For this revision they noted different hashes: which members noted which, and those of them whom most of the
    /// members contradict; none where no hash is noted by most.
    Different {
        revision: i64,
        noted: BTreeMap<u32, Vec<u64>>,
        wrong: Vec<u64>,
    },
    /// No revision after the last that was compared is noted by all.
    Unknown,
}

/// Compares what the leader noted, the newest first and down to the revision `checked`, with what the others did; None for
/// one that does not say.
#[must_use]
pub fn compare_noted(
    leader: u64,
    mine: &[Noted],
    others: &[(u64, Option<Vec<Noted>>)],
    checked: i64,
) -> Comparison {
    let members = others.len() + 1;
    for Noted { revision, hash } in mine.iter().filter(|noted| noted.revision > checked) {
        let mut noted = BTreeMap::from([(*hash, vec![leader])]);
        let mut compared = 1;
        for (id, theirs) in others {
            let mut theirs = theirs.iter().flatten();
            if let Some(note) = theirs.find(|note| note.revision == *revision) {
                noted.entry(note.hash).or_default().push(*id);
                compared += 1;
            }
        }
        if noted.len() > 1 {
            let right = noted.values().find(|ids| ids.len() > members / 2);
            let right = right.cloned();
            let all = noted.values().flatten().copied();
            let wrong = right.map_or(Vec::new(), |right| {
                all.filter(|id| !right.contains(id)).collect()
            });
            return Comparison::Different {
                revision: *revision,
                noted,
                wrong,
            };
        }
        if compared == members && members > 1 {
            return Comparison::Alike(*revision);
        }
    }
    Comparison::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(pairs: &[(i64, u32)]) -> Vec<Noted> {
        let note = |(revision, hash): &(i64, u32)| Noted {
            revision: *revision,
            hash: *hash,
        };
        pairs.iter().map(note).collect()
    }

    /// Pairs of revision and hash, if a member says what it noted.
    type Said<'a> = Option<&'a [(i64, u32)]>;

    fn compare(mine: &[(i64, u32)], others: &[Said<'_>], checked: i64) -> Comparison {
        let others: Vec<_> = (2..)
            .zip(others.iter().map(|theirs| theirs.map(notes)))
            .collect();
        compare_noted(1, &notes(mine), &others, checked)
    }

    #[test]
    fn the_newest_revision_that_all_noted_is_compared() {
        let mine: &[_] = &[(30, 3), (20, 2), (10, 1)];
        assert_eq!(compare(mine, &[Some(mine); 2], 0), Comparison::Alike(30));
        let behind: &[_] = &[(20, 2), (10, 1)];
        let others = [Some(mine), Some(behind)];
        assert_eq!(compare(mine, &others, 0), Comparison::Alike(20));
        assert_eq!(
            compare(mine, &others, 20),
            Comparison::Unknown,
            "compared before"
        );
        let silent = [Some(mine), None];
        assert_eq!(compare(mine, &silent, 0), Comparison::Unknown);
        assert_eq!(compare(mine, &[], 0), Comparison::Unknown, "alone");
    }

    #[test]
    fn whom_most_members_contradict_is_found_also_the_leader() {
        let cases: [(&[Said<'_>], &[u64]); 6] = [
            (&[Some(&[(10, 1)]), Some(&[(10, 7)])], &[3]),
            (&[Some(&[(10, 7)]), Some(&[(10, 7)])], &[1]),
            (&[Some(&[(10, 7)]), Some(&[(10, 8)])], &[]),
            // Two of three are not most of five, and one that is silent is counted.
            (&[Some(&[(10, 1)]), Some(&[(10, 7)]), None, None], &[]),
            (&[Some(&[(10, 7)])], &[]),
            (
                &[
                    Some(&[(10, 1)]),
                    Some(&[(10, 7)]),
                    Some(&[(10, 8)]),
                    Some(&[(10, 1)]),
                ],
                &[3, 4],
            ),
        ];
        for (others, expected) in cases {
            let Comparison::Different {
                revision, wrong, ..
            } = compare(&[(20, 2), (10, 1)], others, 0)
            else {
                panic!("{others:?} are told alike");
            };
            assert_eq!((revision, wrong.as_slice()), (10, expected), "{others:?}");
        }
    }

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
