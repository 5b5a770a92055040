//! The SHA-256 that etcd appends to a snapshot, of all bytes before it.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::reader::Source;
use super::BoltError;

pub const TRAILER_BYTES: u64 = 32;
/// A file of pages is a multiple of this, and so shows whether a trailer follows (etcd's own rule).
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 256 << 10;

/// Passes bytes on and adds the trailer.
pub struct Sealed<W> {
    out: W,
    hasher: Sha256,
}

impl<W: Write> Sealed<W> {
    pub fn new(out: W) -> Self {
        Self {
            out,
            hasher: Sha256::new(),
        }
    }

    /// Write the trailer.
    ///
    /// # Errors
    /// When `out` takes no bytes.
    pub fn seal(mut self) -> std::io::Result<W> {
        let digest = self.hasher.finalize();
        self.out.write_all(&digest)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let taken = self.out.write(data)?;
        self.hasher.update(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// What the end of a file says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Without the trailer.
    pub bytes: u64,
    /// Whether there is a trailer.
    pub sealed: bool,
}

impl Checked {
    /// See whether there is a trailer; reads no content.
    ///
    /// # Errors
    /// When the length can't be read.
    pub fn look(source: &impl Source) -> Result<Self, BoltError> {
        let length = source.bytes()?;
        let sealed = length % SECTOR_BYTES == TRAILER_BYTES;
        let bytes = length - if sealed { TRAILER_BYTES } else { 0 };
        Ok(Self { bytes, sealed })
    }

    /// Read the whole file and compare.
    ///
    /// # Errors
    /// When there is no trailer, or another one than the content has.
    pub fn verify(source: &impl Source) -> Result<Self, BoltError> {
        let found = Self::look(source)?;
        if !found.sealed {
            return Err(BoltError::Trailer(
                "the snapshot has no checksum at its end: it was cut off, or is a copy of a data directory's file; \
                 for such a copy pass --skip-hash-check"
                    .to_owned(),
            ));
        }
        let mut hasher = Sha256::new();
        let (mut buffer, mut at) = (vec![0; READ_BYTES], 0);
        while at < found.bytes {
            let part = (found.bytes - at).min(READ_BYTES as u64) as usize;
            source.read_at(&mut buffer[..part], at)?;
            hasher.update(&buffer[..part]);
            at += part as u64;
        }
        let mut expected = [0; TRAILER_BYTES as usize];
        source.read_at(&mut expected, at)?;
        if hasher.finalize().as_slice() != expected {
            return Err(BoltError::Trailer(
                "the snapshot is damaged: its content does not have the checksum at its end; take it anew".to_owned(),
            ));
        }
        Ok(found)
    }
}
