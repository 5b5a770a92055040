//! Backups on a schedule: the state as etcd's snapshot file, again and again, in a directory that may hold other things too.
//!
//! A backup counts once it was read back from the disk. What fails is told and tried again; the member goes on.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use crate::etcd_file::{self, EtcdFileError, Head};
use crate::handle::Handle;
use crate::snapshot::Export;

/// Before one that failed is tried again, unless the next is due sooner.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// Where, how often and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub dir: PathBuf,
    pub interval: Duration,
    /// At least one.
    pub keep: usize,
}

/// One that was written and read back.
#[derive(Debug, PartialEq, Eq)]
struct Backup {
    path: PathBuf,
    revision: i64,
    bytes: u64,
}

/// Makes backups for as long as the member runs, each on a thread of its own.
pub(super) async fn run(handle: Handle, schedule: Schedule) {
    let member = handle.facts().member_id;
    loop {
        let wait = until_next(&schedule, member, SystemTime::now());
        tokio::time::sleep(wait).await;
        // A state that is being replaced comes back; a member that stops needs no backup.
        let Ok(export) = handle.core().and_then(|core| Ok(core.store()?.export())) else {
            tokio::time::sleep(RETRY_PAUSE.min(schedule.interval)).await;
            continue;
        };
        let place = schedule.clone();
        let made = tokio::task::spawn_blocking(move || make(&export, &place, member)).await;
        let made = made
            .map_err(|e| e.to_string())
            .and_then(|made| made.map_err(|e| e.to_string()));
        match made {
            Ok(backup) => info!(
                path = %backup.path.display(),
                revision = backup.revision,
                bytes = backup.bytes,
                "a backup is written and checked"
            ),
            Err(why) => {
                let last = newest(&schedule.dir, member)
                    .map_or_else(|| "none".to_owned(), |path| path.display().to_string());
                warn!(
                    error = why,
                    last_good = last,
                    "a backup failed and is tried again"
                );
                tokio::time::sleep(RETRY_PAUSE.min(schedule.interval)).await;
            }
        }
    }
}

/// How long until the next is due: an interval after the newest, at once where there is none.
fn until_next(schedule: &Schedule, member: u64, now: SystemTime) -> Duration {
    let newest = newest(&schedule.dir, member);
    let Some(made) = newest.and_then(|path| path.metadata().ok()?.modified().ok()) else {
        return Duration::ZERO;
    };
    // After a clock that was set back it is due an interval from now, at most.
    let age = now.duration_since(made).unwrap_or_default();
    schedule.interval.saturating_sub(age)
}

fn make(export: &Export, schedule: &Schedule, member: u64) -> Result<Backup, EtcdFileError> {
    let dir = &schedule.dir;
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    for stale in own(dir, member, ".part") {
        std::fs::remove_file(&stale).map_err(failed(&stale))?;
    }
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let stem = format!("{}{}", prefix(member), stamp(seconds));
    let part = dir.join(format!("{stem}.part"));
    let done = write(export, &part).and_then(|(revision, bytes)| {
        let path = dir.join(format!("{stem}-r{revision}.db"));
        std::fs::rename(&part, &path).map_err(failed(&path))?;
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(failed(dir))?;
        Ok(Backup {
            path,
            revision,
            bytes,
        })
    });
    if done.is_err() {
        // It may not be there yet; what can't be removed is removed before the next.
        let _ = std::fs::remove_file(&part);
    }
    let backup = done?;
    let mut kept = own(dir, member, ".db");
    kept.sort();
    let surplus = kept.len().saturating_sub(schedule.keep.max(1));
    for old in kept.iter().take(surplus) {
        std::fs::remove_file(old).map_err(failed(old))?;
    }
    Ok(backup)
}

/// Writes a whole file and reads it back, from the disk; its revision and bytes.
fn write(export: &Export, path: &Path) -> Result<(i64, u64), EtcdFileError> {
    // All keys and passwords' hashes are in it.
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = file.map_err(failed(path))?;
    let mut revision = 0;
    etcd_file::write(export.view(), |head: Head| {
        revision = head.revision;
        Out(&file)
    })?;
    file.sync_all().map_err(failed(path))?;
    // Else what is read back comes from memory. It is a hint: there is nothing to do where it is not taken.
    // SAFETY: the descriptor is open for as long as `file` lives, which is longer than this call.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let status = etcd_file::status(&etcd_file::open(path, false)?)?;
    if status.revision > revision {
        let why = format!(
            "{} holds revision {}, not {revision}",
            path.display(),
            status.revision
        );
        return Err(EtcdFileError::Refused(why));
    }
    Ok((revision, status.total_bytes))
}

/// Passes bytes on to a file that another holds.
struct Out<'a>(&'a File);

impl Write for Out<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> EtcdFileError + '_ {
    move |error| EtcdFileError::Refused(format!("{}: {error}", path.display()))
}

/// What the names of a member's backups begin with; others' files in the directory are none of its business.
fn prefix(member: u64) -> String {
    format!("backup-{member:016x}-")
}

/// A member's own files with this ending; none where the directory can't be read.
fn own(dir: &Path, member: u64, ending: &str) -> Vec<PathBuf> {
    let prefix = prefix(member);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let own = names.filter(|name| {
        let rest = name
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(ending));
        rest.is_some_and(is_stamped)
    });
    own.map(|name| dir.join(name)).collect()
}

/// Whether this is a moment, alone or with a revision behind it, as names have it.
fn is_stamped(text: &str) -> bool {
    let (moment, revision) = text.split_once("-r").unwrap_or((text, "0"));
    let shape = moment.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    shape
        && moment.len() == 16
        && !revision.is_empty()
        && revision.bytes().all(|b| b.is_ascii_digit())
}

fn newest(dir: &Path, member: u64) -> Option<PathBuf> {
    own(dir, member, ".db").into_iter().max()
}

/// A moment, in seconds since 1970, as `20261201T095400Z`: names sort by time.
fn stamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the first of March of the year 0, so that a leap day is a year's last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!(
        "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{:02}Z",
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Store;
    use crate::command::Command;
    use crate::model::proposal;
    use crate::pb::etcd::PutRequest;

    const MEMBER: u64 = 0xab;

    fn schedule(dir: &Path, keep: usize) -> Schedule {
        Schedule {
            dir: dir.join("backups"),
            interval: Duration::from_secs(3_600),
            keep,
        }
    }

    fn store(dir: &Path) -> Store {
        let mut store = Store::open(&dir.join("state")).unwrap();
        let put = PutRequest {
            key: "k".into(),
            ..PutRequest::default()
        };
        store.apply(1, 1, vec![proposal(Command::Put(put))]);
        store.flush().unwrap();
        store
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn moments_are_written_so_that_they_sort() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(951_782_399), "20000228T235959Z");
        assert_eq!(stamp(951_782_400), "20000229T000000Z");
        assert_eq!(stamp(1_796_119_242), "20261201T100042Z");
        assert_eq!(stamp(4_107_542_400), "21000301T000000Z");
    }

    #[test]
    fn the_oldest_go_and_nothing_else_in_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let (store, schedule) = (store(root.path()), schedule(root.path(), 2));
        std::fs::create_dir(&schedule.dir).unwrap();
        let own = [
            "20200101T000000Z-r5.db",
            "20200102T000000Z-r6.db",
            "20200103T000000Z.part",
        ];
        for name in own {
            std::fs::write(schedule.dir.join(format!("{}{name}", prefix(MEMBER))), "x").unwrap();
        }
        let others = [
            "backup-00000000000000ab-mine.db",
            "backup-00000000000000ab-20200101T000000Z-r5.db.bak",
            "backup-00000000000000ac-20200101T000000Z-r5.db",
            "backup-00000000000000ac-20200101T000000Z.part",
            "notes.db",
        ];
        for name in others {
            std::fs::write(schedule.dir.join(name), "x").unwrap();
        }
        let made = make(&store.export(), &schedule, MEMBER).unwrap();
        assert_eq!(
            (made.revision, made.path.parent()),
            (2, Some(schedule.dir.as_path()))
        );
        let mut expected: Vec<String> = others.map(str::to_owned).to_vec();
        expected.push(format!("{}20200102T000000Z-r6.db", prefix(MEMBER)));
        expected.push(made.path.file_name().unwrap().to_str().unwrap().to_owned());
        expected.sort();
        assert_eq!(names(&schedule.dir), expected);
        let read = etcd_file::status(&etcd_file::open(&made.path, false).unwrap()).unwrap();
        assert_eq!(read.revision, 2);
    }

    #[test]
    fn one_that_fails_leaves_nothing_and_those_before_stay() {
        let root = tempfile::tempdir().unwrap();
        let (store, schedule) = (store(root.path()), schedule(root.path(), 1));
        let first = make(&store.export(), &schedule, MEMBER).unwrap();
        let export = store.export();
        // What is closed can't be read.
        drop(store);
        make(&export, &schedule, MEMBER).unwrap_err();
        assert_eq!(
            names(&schedule.dir),
            [first.path.file_name().unwrap().to_str().unwrap()]
        );
        std::fs::remove_file(&first.path).unwrap();
        std::fs::remove_dir(&schedule.dir).unwrap();
        std::fs::write(&schedule.dir, "no directory").unwrap();
        let refused = make(&export, &schedule, MEMBER).unwrap_err().to_string();
        assert!(refused.contains("backups: "), "{refused}");
    }

    #[test]
    fn the_next_is_due_an_interval_after_the_newest() {
        let root = tempfile::tempdir().unwrap();
        let (store, schedule) = (store(root.path()), schedule(root.path(), 1));
        let hour = schedule.interval;
        assert_eq!(
            until_next(&schedule, MEMBER, SystemTime::now()),
            Duration::ZERO
        );
        let made = make(&store.export(), &schedule, MEMBER).unwrap();
        let at = made.path.metadata().unwrap().modified().unwrap();
        assert_eq!(until_next(&schedule, MEMBER, at), hour);
        assert_eq!(
            until_next(&schedule, MEMBER, at + hour / 4),
            hour - hour / 4
        );
        assert_eq!(until_next(&schedule, MEMBER, at + 2 * hour), Duration::ZERO);
        assert_eq!(until_next(&schedule, MEMBER, at - 2 * hour), hour);
        assert_eq!(until_next(&schedule, MEMBER + 1, at), Duration::ZERO);
    }
}
