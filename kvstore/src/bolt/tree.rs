//! A B+ tree built from its sorted keys, from the bottom up: a page is written once it is full, so one page of each level
//! is held and no more.

use std::io::Write;

use super::page::{Header, BRANCH, ELEMENT_BYTES, HEADER_BYTES, LEAF};

/// What we write; bbolt reads the size from the meta pages.
pub const PAGE_BYTES: usize = 4096;
/// bbolt takes a branch with a single child for a mistake when that child changes: so many stay for the last page.
const KEPT_CHILDREN: usize = 2;

/// Where pages go, in the order of their ids.
pub struct Pages<W> {
    pub out: W,
    pub next: u64,
}

impl<W: Write> Pages<W> {
    /// Write a page, or a run of them, padded; returns its id.
    pub fn put(&mut self, kind: u16, count: usize, mut body: Vec<u8>) -> std::io::Result<u64> {
        let pages = (HEADER_BYTES + body.len()).div_ceil(PAGE_BYTES).max(1);
        let header = Header {
            id: self.next,
            kind,
            count: u16::try_from(count).map_err(std::io::Error::other)?,
            overflow: u32::try_from(pages - 1).map_err(std::io::Error::other)?,
        };
        let mut head = Vec::with_capacity(HEADER_BYTES);
        header.put(&mut head);
        body.resize(pages * PAGE_BYTES - HEADER_BYTES, 0);
        self.out.write_all(&head)?;
        self.out.write_all(&body)?;
        self.next += pages as u64;
        Ok(header.id)
    }
}

enum Element {
    Leaf { flags: u32, key: u32, value: u32 },
    Branch { key: u32, child: u64 },
}

/// The page of one level that is being filled.
#[derive(Default)]
struct Open {
    elements: Vec<Element>,
    /// Keys and values, or the keys of children.
    data: Vec<u8>,
}

impl Open {
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    fn first_key(&self) -> &[u8] {
        let length = match self.elements.first() {
            Some(Element::Leaf { key, .. } | Element::Branch { key, .. }) => *key as usize,
            None => 0,
        };
        &self.data[..length]
    }

    /// The last few children, taken off.
    fn split(&mut self) -> Self {
        let elements = self.elements.split_off(self.elements.len() - KEPT_CHILDREN);
        let bytes = elements.iter().map(|element| match element {
            Element::Leaf { key, value, .. } => (key + value) as usize,
            Element::Branch { key, .. } => *key as usize,
        });
        let data = self.data.split_off(self.data.len() - bytes.sum::<usize>());
        Self { elements, data }
    }

    fn write<W: Write>(self, pages: &mut Pages<W>, level: usize) -> std::io::Result<u64> {
        let mut body = Vec::with_capacity(self.bytes());
        // Of the next key, from the begin of its element.
        let mut position = (self.elements.len() * ELEMENT_BYTES) as u32;
        for element in &self.elements {
            let (parts, taken) = match *element {
                Element::Leaf { flags, key, value } => ([flags, position, key, value], key + value),
                Element::Branch { key, child } => {
                    ([position, key, child as u32, (child >> 32) as u32], key)
                }
            };
            for part in parts {
                body.extend_from_slice(&part.to_le_bytes());
            }
            position += taken;
            position -= ELEMENT_BYTES as u32;
        }
        body.extend_from_slice(&self.data);
        let kind = if level == 0 { LEAF } else { BRANCH };
        pages.put(kind, self.elements.len(), body)
    }
}

/// One tree.
pub struct Tree {
    levels: Vec<Open>,
}

impl Tree {
    pub fn new() -> Self {
        Self {
            levels: vec![Open::default()],
        }
    }

    /// Add a key behind all others; keys and values are shorter than 2^31.
    pub fn put<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> std::io::Result<()> {
        let more = ELEMENT_BYTES + key.len() + value.len();
        let leaf = &mut self.levels[0];
        if !leaf.elements.is_empty() && leaf.bytes() + more > PAGE_BYTES {
            let full = std::mem::take(leaf);
            self.close_page(pages, 0, full)?;
        }
        let leaf = &mut self.levels[0];
        leaf.elements.push(Element::Leaf {
            flags,
            key: key.len() as u32,
            value: value.len() as u32,
        });
        leaf.data.extend_from_slice(key);
        leaf.data.extend_from_slice(value);
        Ok(())
    }

    fn close_page<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        full: Open,
    ) -> std::io::Result<()> {
        let key = full.first_key().to_vec();
        let child = full.write(pages, level)?;
        let above = level + 1;
        if self.levels.len() == above {
            self.levels.push(Open::default());
        }
        let branch = &mut self.levels[above];
        branch.elements.push(Element::Branch {
            key: key.len() as u32,
            child,
        });
        branch.data.extend_from_slice(&key);
        if branch.bytes() <= PAGE_BYTES || branch.elements.len() < 2 * KEPT_CHILDREN {
            return Ok(());
        }
        let kept = branch.split();
        let full = std::mem::replace(branch, kept);
        self.close_page(pages, above, full)
    }

    /// Write what is left; returns the root page's id.
    pub fn close<W: Write>(mut self, pages: &mut Pages<W>) -> std::io::Result<u64> {
        let mut level = 0;
        loop {
            let last = std::mem::take(&mut self.levels[level]);
            if level + 1 == self.levels.len() {
                return last.write(pages, level);
            }
            self.close_page(pages, level, last)?;
            level += 1;
        }
    }
}
