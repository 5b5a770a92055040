//! A file that anyone may have made: every number in it is checked before it is believed.
//!
//! A cursor holds the pages from the root to where it stands, and a bit for each page of the file: none is visited twice,
//! so a walk ends, whatever the pages say.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::page::{
    page_sizes, u64_at, Header, Leaf, Meta, Node, BUCKET_BYTES, HEADER_BYTES, IS_BUCKET, META_END,
    META_PAGES, NO_FREELIST,
};
use super::BoltError;

/// Pages above each other; a tree of 16 levels has more keys than disks hold.
const MAX_DEPTH: usize = 16;
/// Bytes of all pages from the root to a leaf. A leaf may hold four values of the largest request.
const MAX_PATH_BYTES: usize = 256 << 20;
/// etcd has ten.
const MAX_BUCKETS: usize = 64;

/// Bytes that can be read anywhere.
pub trait Source {
    /// How many there are.
    ///
    /// # Errors
    /// The system's.
    fn bytes(&self) -> std::io::Result<u64>;

    /// Fill `out` from `offset` on.
    ///
    /// # Errors
    /// When there are not that many, or the system's.
    fn read_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()>;
}

impl Source for File {
    fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.read_exact_at(out, offset)
    }
}

impl Source for Vec<u8> {
    fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.get(from..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(part.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A bucket's name and where its keys are.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub name: Vec<u8>,
    root: Root,
}

#[derive(Debug, Clone)]
enum Root {
    Page(u64),
    /// A small bucket lies within its parent's page.
    Inline {
        page: u64,
        offset: u64,
        data: Vec<u8>,
    },
}

/// An open file.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    meta: Meta,
}

impl<S: Source> Reader<S> {
    /// Read both meta pages; `bytes` is the file's length without a trailer.
    ///
    /// # Errors
    /// When neither is valid, or the file is shorter than they say.
    pub fn open(source: S, bytes: u64) -> Result<Self, BoltError> {
        let at = |offset: u64| -> Result<Meta, String> {
            let mut head = [0; META_END];
            if offset + META_END as u64 > bytes {
                return Err("the file ends within a meta page".to_owned());
            }
            source
                .read_at(&mut head, offset)
                .map_err(|e| e.to_string())?;
            Meta::read(&head)
        };
        let first = at(0);
        let second = match &first {
            Ok(meta) => at(u64::from(meta.page_size)),
            // A guess that finds a whole meta page at another size than it tells was none.
            Err(why) => page_sizes()
                .filter_map(|size| at(size).ok().filter(|m| u64::from(m.page_size) == size))
                .next()
                .ok_or_else(|| why.clone()),
        };
        let meta = match (first, second) {
            (Ok(a), Ok(b)) => {
                if a.txid >= b.txid {
                    a
                } else {
                    b
                }
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
            (Err(why), Err(_)) => return Err(BoltError::NoMeta(why)),
        };
        let has = bytes / u64::from(meta.page_size);
        let known = |page: u64| (META_PAGES..meta.pages).contains(&page);
        let what = if meta.pages > has {
            format!("the file has {has} pages, and should have {}", meta.pages)
        } else if !known(meta.root) || !(known(meta.freelist) || meta.freelist == NO_FREELIST) {
            format!(
                "root page {} or freelist {} is not among its {} pages",
                meta.root, meta.freelist, meta.pages
            )
        } else {
            return Ok(Self { source, meta });
        };
        Err(BoltError::Damaged {
            page: meta.txid % META_PAGES,
            offset: (meta.txid % META_PAGES) * u64::from(meta.page_size),
            what,
        })
    }

    /// Bytes of the pages in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_size)
    }

    /// All buckets by name.
    ///
    /// # Errors
    /// When the page of buckets is damaged, or holds something else.
    pub fn buckets(&self) -> Result<Vec<Bucket>, BoltError> {
        let mut cursor = self.cursor(&Bucket {
            name: Vec::new(),
            root: Root::Page(self.meta.root),
        })?;
        let mut found = Vec::new();
        while let Some(element) = cursor.element()? {
            let Leaf { page, value, .. } = element;
            if element.flags != IS_BUCKET || value.len() < BUCKET_BYTES {
                return Err(element.damaged("a bucket is expected"));
            }
            if found.len() == MAX_BUCKETS {
                return Err(element.damaged(&format!("more than {MAX_BUCKETS} buckets")));
            }
            let root = match u64_at(value, 0) {
                0 => Root::Inline {
                    page,
                    offset: element.offset + BUCKET_BYTES as u64,
                    data: value[BUCKET_BYTES..].to_vec(),
                },
                id => Root::Page(id),
            };
            found.push(Bucket {
                name: element.key.to_vec(),
                root,
            });
        }
        Ok(found)
    }

    /// A bucket's keys in order.
    ///
    /// # Errors
    /// When its first page is damaged.
    pub fn cursor(&self, bucket: &Bucket) -> Result<Cursor<'_, S>, BoltError> {
        let mut cursor = Cursor {
            reader: self,
            path: Vec::new(),
            path_bytes: 0,
            seen: vec![0; usize::try_from(self.meta.pages / 64 + 1).unwrap_or(0)],
            last: Vec::new(),
        };
        match &bucket.root {
            Root::Page(id) => cursor.descend(*id, (0, 0))?,
            Root::Inline { page, offset, data } => {
                if data.len() < HEADER_BYTES {
                    return Err(BoltError::Damaged {
                        page: *page,
                        offset: *offset,
                        what: "an inline bucket is too short".to_owned(),
                    });
                }
                let node = Node::new(*page, *offset, data.clone())?;
                cursor.path.push((node, 0));
            }
        }
        Ok(cursor)
    }
}

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// Goes through a bucket.
#[derive(Debug)]
pub struct Cursor<'r, S> {
    reader: &'r Reader<S>,
    /// Each with the next element to visit.
    path: Vec<(Node, u16)>,
    path_bytes: usize,
    /// A bit for each page.
    seen: Vec<u64>,
    last: Vec<u8>,
}

impl<S: Source> Cursor<'_, S> {
    /// The next key and value; None at the end.
    ///
    /// # Errors
    /// When a page on the way is damaged.
    #[allow(clippy::should_implement_trait)] // What it gives is borrowed from it.
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, BoltError> {
        match self.element()? {
            None => Ok(None),
            Some(found) if found.flags == 0 => Ok(Some((found.key, found.value))),
            Some(found) => Err(found.damaged("a bucket within a bucket")),
        }
    }

    fn element(&mut self) -> Result<Option<Leaf<'_>>, BoltError> {
        loop {
            let Some((node, next)) = self.path.last_mut() else {
                return Ok(None);
            };
            if *next == node.header.count {
                self.path_bytes = self.path_bytes.saturating_sub(node.len());
                self.path.pop();
                continue;
            }
            let index = *next;
            *next += 1;
            if !node.is_branch() {
                break;
            }
            let (child, from) = (node.child(index), (node.header.id, index));
            self.descend(child, from)?;
        }
        let Some((node, next)) = self.path.last() else {
            return Ok(None);
        };
        let found = node.leaf(next - 1)?;
        if found.key <= self.last.as_slice() {
            return Err(found.damaged("its keys are not in order"));
        }
        self.last.clear();
        self.last.extend_from_slice(found.key);
        Ok(Some(found))
    }

    /// Step into a page; `from` is the branch that names it and the element there.
    fn descend(&mut self, id: u64, from: (u64, u16)) -> Result<(), BoltError> {
        let meta = &self.reader.meta;
        let size = u64::from(meta.page_size);
        let damaged = |page: u64, what: String| BoltError::Damaged {
            page,
            offset: page * size,
            what,
        };
        if !(META_PAGES..meta.pages).contains(&id) {
            let what = format!(
                "element {} leads to page {id}, and there are {}",
                from.1, meta.pages
            );
            return Err(damaged(from.0, what));
        }
        if self.path.len() == MAX_DEPTH {
            return Err(damaged(
                id,
                format!("more than {MAX_DEPTH} pages above each other"),
            ));
        }
        let mut head = [0; HEADER_BYTES];
        self.reader.source.read_at(&mut head, id * size)?;
        let header = Header::read(&head);
        if header.id != id {
            return Err(damaged(id, format!("it calls itself page {}", header.id)));
        }
        let end = id + u64::from(header.overflow) + 1;
        if end > meta.pages {
            let what = format!(
                "{} more pages belong to it, and there are {}",
                header.overflow, meta.pages
            );
            return Err(damaged(id, what));
        }
        let bytes = usize::try_from((end - id) * size).unwrap_or(usize::MAX);
        if bytes.saturating_add(self.path_bytes) > MAX_PATH_BYTES {
            let what = format!("it has {bytes} bytes, more than any value of etcd's");
            return Err(damaged(id, what));
        }
        for page in id..end {
            let (word, bit) = (page as usize / 64, 1 << (page % 64));
            if self.seen[word] & bit != 0 {
                return Err(damaged(page, "two places lead to it".to_owned()));
            }
            self.seen[word] |= bit;
        }
        let mut data = vec![0; bytes];
        self.reader.source.read_at(&mut data, id * size)?;
        self.path_bytes += bytes;
        self.path.push((Node::new(id, id * size, data)?, 0));
        Ok(())
    }
}
