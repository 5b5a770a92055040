//! The payload's output as records `time stream P|F text` in files `log.<generation>`, rotated by size. It never blocks
//! the payload for a full disk: what could not be written is counted, and a record says so afterwards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub const MAX_RECORD_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout = 1,
    Stderr = 2,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

pub struct Log {
    dir: PathBuf,
    file: Option<File>,
    generation: u64,
    size: u64,
    max_bytes: u64,
    max_files: u64,
    pending: [Vec<u8>; 2],
    lost: u64,
}

impl Log {
    /// Opens the newest generation in `dir` to append, or the first.
    pub fn open(dir: &Path, max_bytes: u64, max_files: u64) -> io::Result<Log> {
        fs::create_dir_all(dir)?;
        let newest = generations(dir)?.last().copied().unwrap_or(1);
        let mut log = Log {
            dir: dir.to_path_buf(),
            file: None,
            generation: newest,
            size: 0,
            max_bytes,
            max_files,
            pending: [Vec::new(), Vec::new()],
            lost: 0,
        };
        log.open_generation()?;
        Ok(log)
    }

    /// Takes output as read, `now` in nanoseconds since the epoch; whole lines go to the file with one write.
    pub fn take(&mut self, stream: Stream, data: &[u8], now: i128) {
        let mut pending = std::mem::take(&mut self.pending[stream as usize - 1]);
        let time = format_time(now);
        let mut records = Vec::with_capacity(data.len() + 64);
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let mut text = text;
            while pending.len() + text.len() > MAX_RECORD_BYTES {
                let (head, tail) = text.split_at(MAX_RECORD_BYTES - pending.len());
                pending.extend_from_slice(head);
                self.add(&mut records, &time, stream, false, &pending);
                pending.clear();
                text = tail;
            }
            pending.extend_from_slice(text);
            if whole {
                self.add(&mut records, &time, stream, true, &pending);
                pending.clear();
            }
        }
        self.pending[stream as usize - 1] = pending;
        self.flush(&mut records);
    }

    /// Writes what came without its newline; to be called when no more will come.
    pub fn finish(&mut self, now: i128) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize - 1]);
            if !pending.is_empty() {
                let mut records = Vec::new();
                self.add(&mut records, &format_time(now), stream, false, &pending);
                self.flush(&mut records);
            }
        }
        self.note_loss();
    }

    fn add(&mut self, records: &mut Vec<u8>, time: &str, stream: Stream, whole: bool, text: &[u8]) {
        let length = (time.len() + stream.name().len() + text.len() + 5) as u64;
        let waiting = self.size + records.len() as u64;
        if waiting > 0 && waiting + length > self.max_bytes {
            self.flush(records);
            if self.size > 0 {
                self.rotate();
            }
        }
        records.extend_from_slice(time.as_bytes());
        records.push(b' ');
        records.extend_from_slice(stream.name().as_bytes());
        records.extend_from_slice(if whole { b" F " } else { b" P " });
        records.extend_from_slice(text);
        records.push(b'\n');
    }

    fn flush(&mut self, records: &mut Vec<u8>) {
        if records.is_empty() {
            return;
        }
        self.note_loss();
        let kept = self.append(records);
        self.lost += records[kept..].iter().filter(|byte| **byte == b'\n').count() as u64;
        records.clear();
    }

    fn note_loss(&mut self) {
        if self.lost > 0 {
            let time = format_time(crate::sys::now_ns());
            let lost = self.lost;
            let note =
                format!("{time} stderr F fleet-monitor: {lost} records were lost, the log could not be written\n");
            if self.append(note.as_bytes()) == note.len() {
                self.lost = 0;
            }
        }
    }

    /// Writes as many whole records as there is room for, and returns their length.
    fn append(&mut self, records: &[u8]) -> usize {
        if self.file.is_none() && self.open_generation().is_err() {
            return 0;
        }
        let Some(file) = self.file.as_mut() else { return 0 };
        let mut written = 0;
        while written < records.len() {
            match file.write(&records[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if written < records.len() {
            // A torn record would be read as a damaged line; where even this fails, readers skip it.
            written = records[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let _ = file.set_len(self.size + written as u64);
        }
        self.size += written as u64;
        written
    }

    fn rotate(&mut self) {
        self.generation += 1;
        self.file = None;
        self.size = 0;
        if self.open_generation().is_err() {
            return; // `append` tries again, and counts what is lost meanwhile
        }
        if let Ok(all) = generations(&self.dir) {
            for old in all.into_iter().filter(|old| old + self.max_files <= self.generation) {
                let _ = fs::remove_file(self.dir.join(format!("log.{old}")));
            }
        }
    }

    fn open_generation(&mut self) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.dir.join(format!("log.{}", self.generation));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        self.size = file.metadata()?.len();
        if self.size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last[0] != b'\n' {
                file.write_all(b"\n")?;
                self.size += 1;
            }
        }
        self.file = Some(file);
        Ok(())
    }
}

fn generations(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("log.")?.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// RFC 3339 with nanoseconds in UTC, always 30 characters.
pub fn format_time(ns: i128) -> String {
    let seconds = i64::try_from(ns.div_euclid(1_000_000_000)).unwrap_or(0);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date: years begin in March, so that the leap day is a year's last one.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        ns.rem_euclid(1_000_000_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("fleet-monitor-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn all(dir: &Path) -> String {
        let files = generations(dir).unwrap();
        files.iter().map(|one| fs::read_to_string(dir.join(format!("log.{one}"))).unwrap()).collect()
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(format_time(1_709_210_096_000_000_007), "2024-02-29T12:34:56.000000007Z");
        assert_eq!(format_time(4_102_444_799_999_999_999), "2099-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn joins_pieces_and_splits_long_lines() {
        let dir = scratch("lines");
        let mut log = Log::open(&dir, 1 << 20, 2).unwrap();
        log.take(Stream::Stdout, b"one\ntw", 0);
        log.take(Stream::Stderr, b"err\n", 0);
        log.take(Stream::Stdout, b"o\n", 0);
        log.take(Stream::Stdout, &[b'x'; MAX_RECORD_BYTES + 5], 0);
        log.finish(0);
        let lines: Vec<String> = all(&dir).lines().map(|line| line[31..].to_string()).collect();
        assert_eq!(lines[..3], ["stdout F one", "stderr F err", "stdout F two"]);
        assert_eq!(lines[3].len(), "stdout P ".len() + MAX_RECORD_BYTES);
        assert_eq!(lines[4], "stdout P xxxxx");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn rotates_without_loss_and_keeps_a_bound() {
        let dir = scratch("rotate");
        let mut log = Log::open(&dir, 1024, 3).unwrap();
        for number in 0..200 {
            log.take(Stream::Stdout, format!("line {number}\n").as_bytes(), 0);
        }
        let files = generations(&dir).unwrap();
        assert_eq!(files.len(), 3);
        let text = all(&dir);
        let kept: Vec<u32> = text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(*kept.last().unwrap(), 199);
        assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1));
        for one in files {
            assert!(fs::metadata(dir.join(format!("log.{one}"))).unwrap().len() <= 1024);
        }
        drop(log);
        let mut again = Log::open(&dir, 1024, 3).unwrap();
        again.take(Stream::Stdout, b"line 200\n", 0);
        assert!(all(&dir).ends_with("line 200\n"));
        fs::remove_dir_all(dir).unwrap();
    }
}
