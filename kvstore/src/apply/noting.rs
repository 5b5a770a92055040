//! Hashes noted at compactions, by which members are compared without reading their keys. They go with the state: one that
//! is replaced, or opened anew, has none.

use super::Store;

/// How many are kept, the newest (etcd's `hashStorageMaxSize`).
const MAX_NOTED: usize = 10;

/// The hash of the keys up to a compaction's revision, as that keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    pub revision: i64,
    pub hash: u32,
}

impl Store {
    /// What was noted, the newest first.
    #[must_use]
    pub fn noted(&self) -> &[Noted] {
        &self.noted
    }

    /// Notes the hash of the last compaction; one of a compaction that is not the last any more, or is noted, is dropped.
    pub fn note(&mut self, noted: Noted) {
        if self.to_note() == Some(noted.revision) {
            self.noted.insert(0, noted);
            self.noted.truncate(MAX_NOTED);
        }
    }

    /// The revision of the last compaction while its hash is not noted; None also before the first.
    #[must_use]
    pub fn to_note(&self) -> Option<i64> {
        let newest = self.noted.first().map_or(0, |noted| noted.revision);
        (self.compacted > newest).then_some(self.compacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::model::proposal;
    use crate::pb::etcd::PutRequest;

    #[test]
    fn the_last_compaction_is_noted_once_and_the_newest_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::open(&root.path().join("s")).unwrap();
        let mut index = 0;
        let mut apply = |store: &mut Store, command| {
            index += 1;
            store.apply(index, 1, vec![proposal(command)]);
        };
        for _ in 0..20 {
            let put = PutRequest {
                key: "k".into(),
                ..Default::default()
            };
            apply(&mut store, Command::Put(put));
        }
        assert_eq!(store.to_note(), None, "nothing was compacted");
        for revision in 2..=15 {
            apply(&mut store, Command::Compact(revision));
            assert_eq!(store.to_note(), Some(revision));
            for hash in [7, 8] {
                store.note(Noted { revision, hash });
            }
            assert_eq!(store.to_note(), None);
        }
        let noted: Vec<_> = store.noted().iter().map(|one| one.revision).collect();
        assert_eq!(noted, [15, 14, 13, 12, 11, 10, 9, 8, 7, 6]);
        assert!(store.noted().iter().all(|one| one.hash == 7));
        apply(&mut store, Command::Compact(16));
        apply(&mut store, Command::Compact(17));
        let revision = 16;
        store.note(Noted { revision, hash: 7 });
        assert_eq!(store.to_note(), Some(17), "16 is not the last any more");
    }
}
