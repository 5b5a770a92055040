//! Online defragmentation: a copy of the tables beside them, page after page full, takes their place.
//!
//! While it is made the tables are in use; only old revisions are not swept away, so that what changes is added behind
//! what was copied. At the end changes wait in memory for the moment that the last of it takes. A crash at any time
//! leaves either the old tables or the whole copy, each with all that the log may lack.

use std::path::{Path, PathBuf};

use crate::apply::{decode_applied, APPLIED};
use crate::backend::{Backend, BackendError, Held, Table, View};
use crate::snapshot::{adopt, IncomingDir};

/// The copy on its way.
pub struct Copy {
    backend: Backend,
    incoming: IncomingDir,
    dir: PathBuf,
    /// The key of the last revision in it.
    last: Vec<u8>,
}

impl Copy {
    /// Begins a copy beside the tables under `dir`.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub fn begin(dir: &Path) -> Result<Self, BackendError> {
        let incoming = IncomingDir::beside(dir);
        Ok(Self {
            backend: Backend::open(incoming.path())?,
            incoming,
            dir: dir.to_owned(),
            last: Vec::new(),
        })
    }

    /// Adds the revisions that came since the last time; how many. Blocks.
    ///
    /// # Errors
    /// When a record can't be read or written, or the tables close.
    pub fn catch_up(&mut self, tables: &View) -> Result<u64, BackendError> {
        tables.hold(|held| self.add_revisions(held))
    }

    fn add_revisions(&mut self, held: &Held<'_>) -> Result<u64, BackendError> {
        let rows = held.after(Table::Revisions, &self.last)?;
        let added = self.backend.append(Table::Revisions, rows)?;
        if let Some(last) = held.last_key(Table::Revisions)? {
            self.last = last.to_vec();
        }
        Ok(added)
    }

    /// Adds the rest, and puts the copy in the place of the tables, which nothing is written to any more and have all up
    /// to the entry `index`. Blocks.
    ///
    /// # Errors
    /// [`Unfinished::Given`] while the tables are what is under the directory.
    pub fn finish(mut self, tables: &View, index: u64) -> Result<Backend, Unfinished> {
        tables.hold(|held| {
            self.add_revisions(held)?;
            for table in [Table::Leases, Table::Meta] {
                self.backend.replace(table, held.after(table, &[])?)?;
            }
            let position = held.get(Table::Meta, APPLIED)?;
            let position = position.and_then(|state| state.try_into().ok());
            let position = position.ok_or_else(|| held.damaged("it has no position"))?;
            let ((applied, _), revision, _) = decode_applied(position);
            if applied != index {
                // The writer found no room for what came before.
                return Err(BackendError::Full(self.dir.display().to_string()));
            }
            self.backend.opened_at(applied, revision);
            Ok::<_, BackendError>(())
        })?;
        adopt(&self.dir, self.incoming).map_err(Unfinished::Torn)?;
        Ok(self.backend)
    }
}

/// Why a copy did not take the tables' place.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// The tables are as they were.
    #[error("{0}")]
    Given(#[from] BackendError),
    /// Which of the two is under the directory is not known; the next start finds out.
    #[error("{0}")]
    Torn(BackendError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Store;
    use crate::model::{proposal, random_command, Model, Random};

    /// A state under random commands.
    struct Run {
        store: Store,
        random: Random,
        model: Model,
        turn: u64,
    }

    impl Run {
        fn new(dir: &Path, seed: u64) -> Self {
            let store = Store::open(dir).unwrap();
            let mut run = Self {
                store,
                random: Random(seed * 6_151),
                model: Model::default(),
                turn: 0,
            };
            run.model.revision = run.store.revision();
            run
        }

        fn go_on(&mut self, turns: u64) {
            for _ in 0..turns {
                self.turn += 1;
                let command = random_command(&mut self.random, &self.model);
                // What the model makes of it is tested elsewhere.
                let _ = self.model.apply(&command);
                self.store.apply(self.turn, 1, vec![proposal(command)]);
                self.store.sweep();
            }
        }
    }

    #[test]
    fn a_state_is_the_same_in_its_copy_whatever_comes_meanwhile() {
        for seed in 1..=8 {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("state");
            let mut run = Run::new(&dir, seed);
            run.go_on(200);
            run.store.hold_sweeps();
            let mut copy = Copy::begin(&dir).unwrap();
            copy.catch_up(run.store.export().view()).unwrap();
            run.go_on(100);
            copy.catch_up(run.store.export().view()).unwrap();
            run.go_on(50);
            let index = run.store.park();
            let export = run.store.export();
            run.go_on(50);
            let fresh = copy.finish(export.view(), index).unwrap();
            drop(export);
            run.go_on(50);
            let old = run.store.resume(Some(fresh));
            assert!(old.is_some());
            drop(old);
            run.go_on(50);
            while run.store.is_sweeping() {
                run.store.sweep();
            }
            let hash = run.store.hash().unwrap();
            run.store.flush().unwrap();
            assert_eq!(run.store.durable_index(), run.turn);
            drop(run.store);
            let again = Store::open(&dir).unwrap();
            assert_eq!(again.hash().unwrap(), hash, "seed {seed}");
            assert_eq!(again.applied().0, run.turn);
        }
    }

    #[test]
    fn a_copy_that_is_given_up_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let mut run = Run::new(&dir, 3);
        run.go_on(100);
        run.store.hold_sweeps();
        let mut copy = Copy::begin(&dir).unwrap();
        copy.catch_up(run.store.export().view()).unwrap();
        run.go_on(20);
        let index = run.store.park();
        let export = run.store.export();
        run.go_on(20);
        // As where the writer had no room for an entry.
        let refused = copy.finish(export.view(), index + 1);
        assert!(matches!(
            refused,
            Err(Unfinished::Given(BackendError::Full(_)))
        ));
        drop(export);
        assert!(run.store.resume(None).is_none());
        run.go_on(20);
        let hash = run.store.hash().unwrap();
        run.store.flush().unwrap();
        drop(run.store);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        assert_eq!(Store::open(&dir).unwrap().hash().unwrap(), hash);
    }

    #[test]
    fn a_copy_is_smaller_than_what_it_is_of() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let mut store = Store::open(&dir).unwrap();
        let put = |key: u64, value: usize| {
            let put = crate::pb::etcd::PutRequest {
                key: format!("k{key:04}").into(),
                value: vec![7; value].into(),
                ..Default::default()
            };
            proposal(crate::command::Command::Put(put))
        };
        for turn in 1..=4_000 {
            store.apply(turn, 1, vec![put(turn % 1_000, 1_000)]);
        }
        let compaction = crate::command::Command::Compact(store.revision());
        store.apply(4_001, 1, vec![proposal(compaction)]);
        while store.is_sweeping() {
            store.sweep();
        }
        store.flush().unwrap();
        let before = (store.size(), store.used());
        let mut copy = Copy::begin(&dir).unwrap();
        assert_eq!(copy.catch_up(store.export().view()).unwrap(), 1_000);
        let index = store.park();
        let fresh = copy.finish(store.export().view(), index).unwrap();
        store.resume(Some(fresh));
        assert!(store.size() < before.0 / 3, "{before:?}, {}", store.size());
        assert!(store.used() <= before.1, "{before:?}, {}", store.used());
    }
}
