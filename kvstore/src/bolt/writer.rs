//! A whole file in one go, to anything that takes bytes.
//!
//! The first page says where the last one is. So who writes does it twice: once to nowhere, for the [`Plan`], and then
//! for good; how long it becomes is known before its first byte is.

use std::collections::BTreeMap;
use std::io::{Sink, Write};

use super::page::{Meta, FREELIST, IS_BUCKET, META_PAGES};
use super::tree::{Pages, Tree, PAGE_BYTES};
use super::BoltError;

/// bbolt's own limit.
const MAX_KEY_BYTES: usize = 32_768;
/// bbolt's own limit is 2 GiB; beyond this no file of etcd's can be: a request is not that large.
const MAX_VALUE_BYTES: usize = 1 << 30;
/// Of the meta in page 0; that in page 1 is the one before.
const TXID: u64 = 2;

/// What a file will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    root: u64,
    freelist: u64,
    pages: u64,
}

impl Plan {
    /// How long the file is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

struct Filling {
    name: Vec<u8>,
    tree: Tree,
    last: Vec<u8>,
}

/// Takes bucket after bucket, each with its keys in ascending order.
pub struct Writer<W> {
    pages: Pages<W>,
    plan: Option<Plan>,
    roots: BTreeMap<Vec<u8>, u64>,
    filling: Option<Filling>,
}

impl Writer<Sink> {
    /// One that writes nowhere, to find the plan.
    #[must_use]
    pub fn measuring() -> Self {
        Self::on(std::io::sink(), None)
    }
}

impl<W: Write> Writer<W> {
    fn on(out: W, plan: Option<Plan>) -> Self {
        Self {
            pages: Pages {
                out,
                next: META_PAGES,
            },
            plan,
            roots: BTreeMap::new(),
            filling: None,
        }
    }

    /// One that writes for good what was measured before.
    ///
    /// # Errors
    /// When `out` takes no bytes.
    pub fn new(mut out: W, plan: Plan) -> Result<Self, BoltError> {
        for txid in [TXID, TXID - 1] {
            let meta = Meta {
                page_size: PAGE_BYTES as u32,
                root: plan.root,
                freelist: plan.freelist,
                pages: plan.pages,
                txid,
            };
            out.write_all(&meta.page())?;
        }
        Ok(Self::on(out, Some(plan)))
    }

    /// Begin a bucket; the one before is whole then.
    ///
    /// # Errors
    /// When the name was there already, or `out` takes no bytes.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), BoltError> {
        self.close()?;
        if name.is_empty() || self.roots.contains_key(name) {
            return Err(unfit(name, "its name is empty, or it comes twice"));
        }
        self.filling = Some(Filling {
            name: name.to_vec(),
            tree: Tree::new(),
            last: Vec::new(),
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), BoltError> {
        if let Some(done) = self.filling.take() {
            let root = done.tree.close(&mut self.pages)?;
            self.roots.insert(done.name, root);
        }
        Ok(())
    }

    /// Add a key to the bucket that was begun.
    ///
    /// # Errors
    /// When it is not behind the last one, or too large, or `out` takes no bytes.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BoltError> {
        let Some(filling) = &mut self.filling else {
            return Err(unfit(b"", "a key comes before any bucket"));
        };
        if key <= filling.last.as_slice() {
            return Err(unfit(&filling.name, "its keys are not in order"));
        }
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            let what = format!("a key of {} and value of {} bytes", key.len(), value.len());
            return Err(unfit(&filling.name, &what));
        }
        filling.last.clear();
        filling.last.extend_from_slice(key);
        filling.tree.put(&mut self.pages, 0, key, value)?;
        Ok(())
    }

    /// Write the rest.
    ///
    /// # Errors
    /// When it is not what was measured, or `out` takes no bytes.
    pub fn finish(mut self) -> Result<(Plan, W), BoltError> {
        self.close()?;
        let mut buckets = Tree::new();
        for (name, root) in &self.roots {
            let sequence = 0_u64;
            let value = [root.to_le_bytes(), sequence.to_le_bytes()].concat();
            buckets.put(&mut self.pages, IS_BUCKET, name, &value)?;
        }
        let root = buckets.close(&mut self.pages)?;
        let freelist = self.pages.put(FREELIST, 0, Vec::new())?;
        let found = Plan {
            root,
            freelist,
            pages: self.pages.next,
        };
        match self.plan {
            Some(plan) if plan != found => {
                Err(unfit(b"", "what was written is not what was measured"))
            }
            _ => Ok((found, self.pages.out)),
        }
    }
}

fn unfit(bucket: &[u8], what: &str) -> BoltError {
    BoltError::Unfit {
        bucket: String::from_utf8_lossy(bucket).into_owned(),
        what: what.to_owned(),
    }
}
