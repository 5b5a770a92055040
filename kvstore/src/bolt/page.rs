//! What lies where in a page.

use super::BoltError;

pub const HEADER_BYTES: usize = 16;
/// Of branch and leaf elements alike.
pub const ELEMENT_BYTES: usize = 16;
/// The root page's id and the sequence, in front of an inline page.
pub const BUCKET_BYTES: usize = 16;
pub const BRANCH: u16 = 0x01;
pub const LEAF: u16 = 0x02;
pub const META: u16 = 0x04;
pub const FREELIST: u16 = 0x10;
/// A leaf element that is a bucket.
pub const IS_BUCKET: u32 = 0x01;
/// Instead of a page id: which pages are free is found by walking.
pub const NO_FREELIST: u64 = u64::MAX;
/// Pages 0 and 1.
pub const META_PAGES: u64 = 2;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_BYTES: usize = 64;
const CHECKED_BYTES: usize = META_BYTES - 8;
/// What bbolt takes for a page: the pages of the machines that it runs on.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 16;
/// From a page's begin to the end of its meta.
pub const META_END: usize = HEADER_BYTES + META_BYTES;

pub fn u16_at(data: &[u8], at: usize) -> u16 {
    number(data, at, |bytes: [u8; 2]| u16::from_le_bytes(bytes))
}

pub fn u32_at(data: &[u8], at: usize) -> u32 {
    number(data, at, |bytes: [u8; 4]| u32::from_le_bytes(bytes))
}

pub fn u64_at(data: &[u8], at: usize) -> u64 {
    number(data, at, |bytes: [u8; 8]| u64::from_le_bytes(bytes))
}

/// The callers have checked the length; past the end there are zeros.
fn number<const N: usize, T>(data: &[u8], at: usize, from: impl Fn([u8; N]) -> T) -> T {
    let bytes = data.get(at..at + N).and_then(|part| part.try_into().ok());
    from(bytes.unwrap_or([0; N]))
}

/// The first bytes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub id: u64,
    pub kind: u16,
    pub count: u16,
    /// Pages that follow and belong to it.
    pub overflow: u32,
}

impl Header {
    pub fn read(data: &[u8]) -> Self {
        Self {
            id: u64_at(data, 0),
            kind: u16_at(data, 8),
            count: u16_at(data, 10),
            overflow: u32_at(data, 12),
        }
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.overflow.to_le_bytes());
    }
}

/// Where everything begins. The valid one with the larger transaction id counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub page_size: u32,
    /// The root page of the bucket of all buckets.
    pub root: u64,
    pub freelist: u64,
    /// Pages in use; those behind hold nothing.
    pub pages: u64,
    pub txid: u64,
}

impl Meta {
    /// The page whose header and meta `data` begins with.
    pub fn read(data: &[u8]) -> Result<Self, String> {
        let Some(body) = data.get(HEADER_BYTES..META_END) else {
            return Err("the file ends within a meta page".to_owned());
        };
        if Header::read(data).kind != META || u32_at(body, 0) != MAGIC {
            return Err("a meta page's marks are missing".to_owned());
        }
        if u32_at(body, 4) != VERSION {
            return Err(format!(
                "its version is {}, and {VERSION} is known",
                u32_at(body, 4)
            ));
        }
        if u64_at(body, CHECKED_BYTES) != fnv1a(&body[..CHECKED_BYTES]) {
            return Err("a meta page's checksum is wrong".to_owned());
        }
        let page_size = u32_at(body, 8);
        if !PAGE_SIZES.contains(&page_size) || !page_size.is_power_of_two() {
            return Err(format!("pages of {page_size} bytes are none"));
        }
        Ok(Self {
            page_size,
            root: u64_at(body, 16),
            freelist: u64_at(body, 32),
            pages: u64_at(body, 40),
            txid: u64_at(body, 48),
        })
    }

    /// A whole page; its id follows from the transaction's.
    pub fn page(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.page_size as usize);
        let header = Header {
            id: self.txid % META_PAGES,
            kind: META,
            count: 0,
            overflow: 0,
        };
        header.put(&mut out);
        for part in [MAGIC, VERSION, self.page_size, 0] {
            out.extend_from_slice(&part.to_le_bytes());
        }
        let sequence = 0;
        for part in [self.root, sequence, self.freelist, self.pages, self.txid] {
            out.extend_from_slice(&part.to_le_bytes());
        }
        let sum = fnv1a(&out[HEADER_BYTES..]);
        out.extend_from_slice(&sum.to_le_bytes());
        out.resize(self.page_size as usize, 0);
        out
    }
}

/// Where the second meta page may begin, when the first one can't be read.
pub fn page_sizes() -> impl Iterator<Item = u64> {
    let (least, most) = (*PAGE_SIZES.start(), *PAGE_SIZES.end());
    (least.trailing_zeros()..=most.trailing_zeros()).map(|bits| 1 << bits)
}

/// FNV-1a with 64 bits.
fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A page or run of pages of a tree, in memory.
#[derive(Debug)]
pub struct Node {
    pub header: Header,
    /// Where it begins in the file.
    offset: u64,
    data: Vec<u8>,
}

impl Node {
    /// `page` is where it lies, for errors: an inline page has no id of its own.
    pub fn new(page: u64, offset: u64, data: Vec<u8>) -> Result<Self, BoltError> {
        let mut header = Header::read(&data);
        header.id = page;
        let node = Self {
            header,
            offset,
            data,
        };
        if ![BRANCH, LEAF].contains(&header.kind) {
            let what = format!(
                "a branch or leaf page is expected, and its kind is {:#x}",
                header.kind
            );
            return Err(node.damaged(8, what));
        }
        if node.elements_end() > node.data.len() {
            let what = format!("{} elements do not fit into it", header.count);
            return Err(node.damaged(10, what));
        }
        if node.is_branch() && header.count == 0 {
            return Err(node.damaged(10, "a branch without children"));
        }
        Ok(node)
    }

    pub fn is_branch(&self) -> bool {
        self.header.kind == BRANCH
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn damaged(&self, at: usize, what: impl Into<String>) -> BoltError {
        BoltError::Damaged {
            page: self.header.id,
            offset: self.offset + at as u64,
            what: what.into(),
        }
    }

    fn elements_end(&self) -> usize {
        HEADER_BYTES + usize::from(self.header.count) * ELEMENT_BYTES
    }

    /// The child's page id of a branch's element.
    pub fn child(&self, index: u16) -> u64 {
        u64_at(&self.data, self.element(index) + 8)
    }

    fn element(&self, index: u16) -> usize {
        HEADER_BYTES + usize::from(index) * ELEMENT_BYTES
    }

    /// A leaf's element.
    pub fn leaf(&self, index: u16) -> Result<Leaf<'_>, BoltError> {
        let at = self.element(index);
        let part = |i: usize| u32_at(&self.data, at + 4 * i) as usize;
        let (position, key_bytes, value_bytes) = (part(1), part(2), part(3));
        let key_at = at + position;
        let value_at = key_at + key_bytes;
        if key_at < self.elements_end() || value_at + value_bytes > self.data.len() {
            let what = format!(
                "element {index} has {key_bytes} + {value_bytes} bytes at {position}: not within the page"
            );
            return Err(self.damaged(at, what));
        }
        if key_bytes == 0 {
            return Err(self.damaged(at, format!("element {index} has an empty key")));
        }
        Ok(Leaf {
            page: self.header.id,
            offset: self.offset + value_at as u64,
            flags: u32_at(&self.data, at),
            key: &self.data[key_at..value_at],
            value: &self.data[value_at..value_at + value_bytes],
        })
    }
}

/// A leaf's element, and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    pub page: u64,
    /// Of the value, in the file.
    pub offset: u64,
    pub flags: u32,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl Leaf<'_> {
    pub fn damaged(&self, what: &str) -> BoltError {
        BoltError::Damaged {
            page: self.page,
            offset: self.offset,
            what: what.to_owned(),
        }
    }
}
