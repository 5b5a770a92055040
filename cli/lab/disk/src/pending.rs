//! What was written to one file and not synced, in order. Pure.

/// The unit in which a disk writes: a write may be torn between two of them, never within one.
pub const SECTOR: u64 = 512;

/// One change of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

/// Changes and bytes of one file that may wait for a sync before they are written all the same, as a system does with
/// what is old or much.
const MAX_WAITING_CHANGES: usize = 4096;
const MAX_WAITING_BYTES: u64 = 64 << 20;

/// Changes that wait for a sync, and how long the file is with them.
#[derive(Debug, Default)]
pub struct Pending {
    /// Those that don't wait, if any, and behind them those that do.
    changes: Vec<Change>,
    /// How many of them don't wait: their sync failed, or comes behind one that did.
    settled: usize,
    /// Whether a sync has failed.
    failed: bool,
    waiting: u64,
    length: u64,
}

/// How power is lost: which of the unsynced bytes reach the disk all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// None.
    All,
    /// Those of the first writes, up to a point within one of them.
    Torn,
    /// Any, sector by sector.
    Scattered,
}

impl Pending {
    /// Nothing waits, and the file is this long.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self {
            length,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.waiting
    }

    /// Whether so much waits that it is to be written now.
    #[must_use]
    pub fn is_much(&self) -> bool {
        self.waiting > MAX_WAITING_BYTES || self.changes.len() - self.settled > MAX_WAITING_CHANGES
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.length = self.length.max(offset + bytes.len() as u64);
        self.waiting += bytes.len() as u64;
        self.changes.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub fn set_length(&mut self, length: u64) {
        self.length = length;
        self.changes.push(Change::Length(length));
    }

    /// What was read of the synced file at `offset` becomes what the file has there now. `window` is as long as was
    /// asked for, with zeros behind the synced file's end; what is returned ends with the file.
    #[must_use]
    pub fn over(&self, offset: u64, mut window: Vec<u8>) -> Vec<u8> {
        for change in &self.changes {
            match change {
                Change::Write { offset: at, bytes } => lay(&mut window, offset, *at, bytes),
                Change::Length(length) => {
                    let keep = length.saturating_sub(offset).min(window.len() as u64) as usize;
                    window[keep..].fill(0);
                }
            }
        }
        window.truncate(self.length.saturating_sub(offset).min(window.len() as u64) as usize);
        window
    }

    /// All that waits; it is taken as synced then.
    pub fn take(&mut self) -> Vec<Change> {
        self.waiting = 0;
        if !self.failed {
            return std::mem::take(&mut self.changes);
        }
        // They lie over what is not synced before them, for readers.
        let taken = self.changes[self.settled..].to_vec();
        self.settled = self.changes.len();
        taken
    }

    /// A sync has failed: what waits is seen until power is lost, and no later sync makes it last. So Linux does it: a
    /// page whose write failed counts as clean.
    pub fn fail(&mut self) {
        self.waiting = 0;
        self.failed = true;
        self.settled = self.changes.len();
    }

    /// What reaches the disk of all that waits when power is lost.
    pub fn survivors(&mut self, loss: Loss, random: &mut Random) -> Vec<Change> {
        let changes = self.take();
        match loss {
            Loss::All => Vec::new(),
            Loss::Torn => {
                let count = random.below(changes.len() as u64 + 1) as usize;
                let mut kept: Vec<Change> = changes.into_iter().take(count).collect();
                if let Some(Change::Write { offset, bytes }) = kept.last_mut() {
                    let sectors = sectors(*offset, bytes.len());
                    let whole = random.below(sectors.len() as u64 + 1) as usize;
                    bytes.truncate(sectors.get(whole).map_or(bytes.len(), |piece| piece.start));
                }
                kept
            }
            Loss::Scattered => {
                let mut kept = Vec::new();
                for change in changes {
                    match change {
                        Change::Write { offset, bytes } => {
                            for piece in sectors(offset, bytes.len()) {
                                if random.below(2) == 0 {
                                    kept.push(Change::Write {
                                        offset: offset + piece.start as u64,
                                        bytes: bytes[piece].to_vec(),
                                    });
                                }
                            }
                        }
                        Change::Length(_) if random.below(2) == 0 => kept.push(change),
                        Change::Length(_) => {}
                    }
                }
                kept
            }
        }
    }
}

/// The parts of a write that lie in one sector each.
fn sectors(offset: u64, length: usize) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < length {
        let room = (SECTOR - (offset + start as u64) % SECTOR) as usize;
        let end = (start + room).min(length);
        found.push(start..end);
        start = end;
    }
    found
}

/// Copies what of `bytes`, at `at`, falls into the window at `offset`.
fn lay(window: &mut [u8], offset: u64, at: u64, bytes: &[u8]) {
    let from = at.max(offset);
    let to = (at + bytes.len() as u64).min(offset + window.len() as u64);
    if from < to {
        let into = (from - offset) as usize..(to - offset) as usize;
        window[into].copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
    }
}

/// Random numbers from a seed (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, bytes: &[u8]) -> Change {
        Change::Write {
            offset,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn a_read_sees_what_waits_in_order() {
        let mut pending = Pending::new(4);
        pending.write(2, b"XYZ");
        pending.write(3, b"!");
        assert_eq!(pending.length(), 5);
        assert_eq!(pending.over(0, b"abcd\0\0\0\0".to_vec()), b"abX!Z");
        assert_eq!(pending.over(4, vec![0; 4]), b"Z");
        assert_eq!(pending.over(9, vec![0; 4]), b"");
    }

    #[test]
    fn what_was_cut_off_is_zeros_when_the_file_grows_again() {
        let mut pending = Pending::new(4);
        pending.set_length(1);
        pending.set_length(3);
        assert_eq!(pending.over(0, b"abcd".to_vec()), b"a\0\0");
    }

    #[test]
    fn what_a_failed_sync_left_is_seen_and_never_lasts() {
        let mut pending = Pending::new(4);
        pending.write(0, b"XX");
        pending.fail();
        pending.write(1, b"YY");
        assert_eq!(
            (pending.bytes(), pending.take()),
            (2, vec![write(1, b"YY")])
        );
        pending.write(3, b"Z");
        assert_eq!(pending.over(0, b"aYYd".to_vec()), b"XYYZ");
        let kept = pending.survivors(Loss::Scattered, &mut Random::new(1));
        assert!(kept.is_empty() || kept == [write(3, b"Z")]);
    }

    #[test]
    fn a_write_is_torn_between_sectors_only() {
        let lengths: Vec<usize> = sectors(500, 1100)
            .iter()
            .map(ExactSizeIterator::len)
            .collect();
        assert_eq!(lengths, [12, 512, 512, 64]);
    }

    #[test]
    fn of_what_waits_nothing_a_beginning_or_anything_survives() {
        let changes = [write(0, &[1; 1024]), write(4096, &[2; 1024])];
        let lose = |loss, seed| {
            let mut pending = Pending::new(0);
            for change in &changes {
                let Change::Write { offset, bytes } = change else {
                    unreachable!()
                };
                pending.write(*offset, bytes);
            }
            let kept = pending.survivors(loss, &mut Random::new(seed));
            assert_eq!(pending.bytes(), 0);
            kept
        };
        let mut torn = 0;
        let mut holes = 0;
        for seed in 0..200 {
            assert!(lose(Loss::All, seed).is_empty());
            match &lose(Loss::Torn, seed)[..] {
                [] => {}
                [Change::Write { offset: 0, bytes }] => torn += usize::from(bytes.len() == 512),
                [first, Change::Write { offset: 4096, .. }] => assert_eq!(first, &changes[0]),
                other => panic!("{other:?}"),
            }
            let kept = lose(Loss::Scattered, seed);
            assert!(kept.len() <= 4);
            holes += usize::from(kept == [write(512, &[1; 512]), write(4096, &[2; 512])]);
        }
        assert!(torn > 5 && holes > 5, "{torn} {holes}");
    }
}
