//! The write-ahead log: segments of checked frames, and what is found in them after a crash. Pure over `Disk`.
//!
//! Each append is one frame, written and synced before the next begins. So a crash can spoil the last frame only: a bad
//! frame with nothing valid behind it is a torn tail and is cut; one with valid frames behind it is damage, an error.
//! A disk may lay zeros ahead of the last frame, so that a sync need not write the file's new length too.
//! A frame's CRC covers its segment and offset, so that a frame in a wrong place is seen too.

mod frame;
mod types;

use bytes::Bytes;

use crate::consensus::{Append, Restored};
use crate::log::{ConfState, HardState, SnapshotMeta};
use crate::record::{self, Record};
use frame::{checksum, frame_at, segment_name, segment_number};
pub use types::{Disk, Identity, Recovered, WalError};

/// A segment that has grown to this is followed by a new one.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Format of the files; another one is refused.
const VERSION: u32 = 1;
const MAGIC: [u8; 4] = *b"FLwl";
/// Magic, length, CRC.
const FRAME_HEAD: usize = 12;

struct Segment {
    number: u64,
    /// Highest index of an entry in it.
    last_index: u64,
}

/// The log, open for appending.
pub struct Wal<D> {
    disk: D,
    identity: Identity,
    segments: Vec<Segment>,
    /// Length of the last segment.
    length: u64,
    hard_state: HardState,
    /// Position of the last entry.
    last: (u64, u64),
    segment_bytes: u64,
}

impl<D: Disk> Wal<D> {
    /// Opens the log, or begins one in an empty directory.
    pub fn open(disk: D, identity: Identity) -> Result<(Self, Recovered), WalError> {
        Self::open_with(disk, identity, SEGMENT_BYTES)
    }

    pub fn open_with(
        disk: D,
        identity: Identity,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), WalError> {
        let mut numbers: Vec<u64> = disk
            .list()?
            .iter()
            .filter_map(|n| segment_number(n))
            .collect();
        numbers.sort_unstable();
        let hard_state = HardState::default();
        let mut wal = Self {
            disk,
            identity,
            segments: Vec::new(),
            length: 0,
            hard_state,
            last: (0, 0),
            segment_bytes,
        };
        let mut found = Recovered::default();
        for (at, &number) in numbers.iter().enumerate() {
            if at > 0 && number != numbers[at - 1] + 1 {
                let why = format!(
                    "the segment before it, {}, is missing",
                    segment_name(number - 1)
                );
                return Err(WalError::Damaged {
                    file: segment_name(number),
                    offset: 0,
                    why,
                });
            }
            wal.read_segment(number, at + 1 == numbers.len(), &mut found)?;
        }
        wal.hard_state = found.hard_state;
        wal.last = found
            .entries
            .last()
            .map_or(found.start, |e| (e.index, e.term));
        if wal.segments.is_empty() {
            wal.roll(numbers.last().copied().unwrap_or(1))?;
        }
        Ok((wal, found))
    }

    /// Joins what was found with a state that is durable up to `applied` (index, term) and has the configuration `conf`.
    pub fn restore(
        &mut self,
        found: Recovered,
        applied: (u64, u64),
        conf: ConfState,
    ) -> Result<Restored, WalError> {
        let (mut start, mut entries, hard_state) = (found.start, found.entries, found.hard_state);
        if applied.0 < start.0 {
            return Err(WalError::StateTooOld {
                applied: applied.0,
                start: start.0,
            });
        }
        let known = match (applied.0 - start.0) as usize {
            0 => Some(start.1),
            n => entries.get(n - 1).map(|e| e.term),
        };
        if known != Some(applied.1) {
            // A snapshot reached the state and the crash came before the log heard of it.
            start = applied;
            entries.clear();
            let snapshot = Some(SnapshotMeta {
                index: applied.0,
                term: applied.1,
                conf: conf.clone(),
            });
            self.append(&[Append {
                number: 0,
                hard_state,
                snapshot,
                entries: Vec::new(),
            }])?;
        }
        Ok(Restored {
            hard_state,
            conf,
            applied: applied.0,
            start,
            entries,
        })
    }

    /// Makes these durable: one write, one sync. Returns the number of the last. After [`WalError::NoSpace`] the same
    /// batch may be tried again.
    pub fn append(&mut self, batch: &[Append]) -> Result<u64, WalError> {
        if self.length >= self.segment_bytes {
            let next = self.segments.last().map_or(1, |s| s.number + 1);
            self.roll(next)?;
        }
        let mut body = Vec::new();
        let mut highest = 0;
        for append in batch {
            if let Some(meta) = &append.snapshot {
                record::put_snapshot(&mut body, meta);
                self.last = (meta.index, meta.term);
            }
            for entry in &append.entries {
                record::put_entry(&mut body, entry);
                self.last = (entry.index, entry.term);
                highest = highest.max(entry.index);
            }
            self.hard_state = append.hard_state;
        }
        record::put_hard_state(&mut body, &self.hard_state);
        self.write_frame(&body)?;
        if let Some(segment) = self.segments.last_mut() {
            segment.last_index = segment.last_index.max(highest);
        }
        Ok(batch.last().map_or(0, |a| a.number))
    }

    /// Removes segments that hold nothing after `index`, which must be durable in the state.
    pub fn compact(&mut self, index: u64) -> Result<(), WalError> {
        while self.segments.len() > 1 && self.segments[0].last_index <= index {
            self.disk.remove(&segment_name(self.segments[0].number))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    pub fn into_disk(self) -> D {
        self.disk
    }

    fn roll(&mut self, number: u64) -> Result<(), WalError> {
        if let Some(full) = self.segments.last() {
            // Zeros are the end of the last segment only.
            self.disk
                .truncate(&segment_name(full.number), self.length)?;
        }
        self.disk.create(&segment_name(number))?;
        self.segments.push(Segment {
            number,
            last_index: 0,
        });
        let before = std::mem::replace(&mut self.length, 0);
        let mut body = Vec::new();
        record::put_header(&mut body, VERSION, self.identity);
        record::put_start(&mut body, self.last);
        record::put_hard_state(&mut body, &self.hard_state);
        let begun = self.write_frame(&body);
        if begun.is_err() {
            // On a full disk the append that wanted it is tried again, and begins it anew.
            self.segments.pop();
            self.length = before;
        }
        begun
    }

    fn write_frame(&mut self, body: &[u8]) -> Result<(), WalError> {
        let Some(segment) = self.segments.last() else {
            return Ok(());
        };
        let mut frame = Vec::with_capacity(FRAME_HEAD + body.len());
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&checksum(segment.number, self.length, body).to_le_bytes());
        frame.extend_from_slice(body);
        let name = segment_name(segment.number);
        self.disk.append(&name, self.length, &frame)?;
        self.disk.sync(&name)?;
        self.length += frame.len() as u64;
        Ok(())
    }

    fn read_segment(
        &mut self,
        number: u64,
        is_last: bool,
        found: &mut Recovered,
    ) -> Result<(), WalError> {
        let name = segment_name(number);
        let bytes = Bytes::from(self.disk.read(&name)?);
        let mut offset = 0;
        let mut last_frame = 0;
        let mut last_index = 0;
        while offset < bytes.len() {
            let Some(body) = frame_at(&bytes, number, offset) else {
                if is_last && offset > 0 && bytes[offset..].iter().all(|&byte| byte == 0) {
                    break;
                }
                let behind =
                    (offset + 1..bytes.len()).find(|&o| frame_at(&bytes, number, o).is_some());
                if let (true, None) = (is_last, behind) {
                    return self.cut(number, offset as u64, last_index, found);
                }
                let why = match behind {
                    Some(next) => format!("this frame is bad, yet the one at byte {next} is whole"),
                    None => "this frame is bad, yet later segments exist".to_owned(),
                };
                return Err(WalError::Damaged {
                    file: name,
                    offset: offset as u64,
                    why,
                });
            };
            let length = FRAME_HEAD + body.len();
            let damaged = |why: String| WalError::Damaged {
                file: name.clone(),
                offset: offset as u64,
                why,
            };
            for record in record::records(body).map_err(damaged)? {
                last_index = last_index.max(self.take_record(&name, record, found).map_err(
                    |e| match e {
                        Ok(error) => error,
                        Err(why) => WalError::Damaged {
                            file: name.clone(),
                            offset: offset as u64,
                            why,
                        },
                    },
                )?);
            }
            last_frame = offset;
            offset += length;
        }
        if offset == 0 {
            return if is_last {
                self.cut(number, 0, 0, found)
            } else {
                Err(empty(name))
            };
        }
        if is_last {
            // Who wrote it may have been killed before it was synced, or have ended since its sync failed: then it is read
            // from the system's memory, and no sync alone would bring it to the disk.
            self.disk
                .renew(&name, last_frame as u64, &bytes[last_frame..offset])?;
        }
        self.segments.push(Segment { number, last_index });
        self.length = offset as u64;
        Ok(())
    }

    fn cut(
        &mut self,
        number: u64,
        length: u64,
        last_index: u64,
        found: &mut Recovered,
    ) -> Result<(), WalError> {
        let name = segment_name(number);
        found.cut = Some((name.clone(), length));
        if length == 0 {
            // The crash came while the segment was begun: nothing in it was ever acknowledged. The one before it is full,
            // so the next append begins it anew; not the start, which a full disk would end.
            self.disk.remove(&name)?;
            return Ok(());
        }
        self.disk.truncate(&name, length)?;
        self.segments.push(Segment { number, last_index });
        self.length = length;
        Ok(())
    }

    /// Adds a record to what was found; gives the index of an entry.
    fn take_record(
        &self,
        file: &str,
        record: Record,
        found: &mut Recovered,
    ) -> Result<u64, Result<WalError, String>> {
        match record {
            Record::Header { version, identity } => {
                if version != VERSION {
                    return Err(Ok(WalError::Version {
                        file: file.to_owned(),
                        found: version,
                    }));
                }
                if identity != self.identity {
                    let Identity { cluster, member } = identity;
                    return Err(Ok(WalError::Foreign {
                        file: file.to_owned(),
                        cluster,
                        member,
                    }));
                }
            }
            Record::Start(position) if self.segments.is_empty() => found.start = position,
            Record::Start(_) => {}
            Record::HardState(hard_state) => found.hard_state = hard_state,
            Record::Snapshot(meta) => {
                found.start = (meta.index, meta.term);
                found.entries.clear();
                found.snapshot = Some(meta);
            }
            Record::Entry(entry) => {
                let index = entry.index;
                let place = index.checked_sub(found.start.0 + 1).map(|p| p as usize);
                match place {
                    Some(place) if place <= found.entries.len() => {
                        found.entries.truncate(place);
                        found.entries.push(entry);
                    }
                    None if found.snapshot.is_none() => {
                        // It overwrote entries of segments since removed, so it was applied when they went; the term
                        // before it went with them, its own serves.
                        found.start = (index, entry.term);
                        found.entries.clear();
                    }
                    _ => {
                        let last = found.start.0 + found.entries.len() as u64;
                        return Err(Err(format!("entry {index} does not follow entry {last}")));
                    }
                }
                return Ok(index);
            }
        }
        Ok(0)
    }
}

fn empty(file: String) -> WalError {
    WalError::Damaged {
        file,
        offset: 0,
        why: "the segment is empty, yet later segments exist".to_owned(),
    }
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
