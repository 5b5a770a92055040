//! Names of segments, and frames within them: magic, length, CRC, body.

use bytes::Bytes;

use super::{FRAME_HEAD, MAGIC};
use crate::planted::{planted, Bug};

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.wal")
}

pub(super) fn segment_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}

pub(super) fn checksum(segment: u64, offset: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

pub(super) fn frame_at(bytes: &Bytes, segment: u64, offset: usize) -> Option<Bytes> {
    let head = bytes.get(offset..offset + FRAME_HEAD)?;
    if head[..4] != MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(head[8..].try_into().ok()?);
    let (from, to) = (offset + FRAME_HEAD, offset + FRAME_HEAD + length);
    let body = bytes.get(from..to)?;
    let whole = planted(Bug::CrcSkipped) || checksum(segment, offset as u64, body) == crc;
    whole.then(|| bytes.slice(from..to))
}
