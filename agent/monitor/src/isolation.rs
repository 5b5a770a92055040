//! StopWhenIsolated=: ends a payload when the cluster has not answered this machine for too long, whether fleetd lives
//! or not. The time of the last answer lies in a page that fleet-presence writes.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::payload::{Payload, Phase};
use crate::sys;

pub const REASON: &str =
    "It was stopped, since the cluster had not answered this machine for too long (StopWhenIsolated=).";
/// Where the page has the CLOCK_BOOTTIME, in ms, of the last answer under a lease that the cluster knows.
const ANSWERED_AT: u64 = 16;
const READS: u32 = 8;

#[derive(Debug, Deserialize)]
pub struct Isolation {
    pub page: PathBuf,
    /// How old the last answer may get.
    pub after_ms: u64,
    /// The signal that then ends the payload, and how long it has before SIGKILL.
    pub signal: i32,
    pub stop_ms: u64,
}

/// How far the end has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Watching,
    Signalled(Instant),
    Killed,
}

impl Isolation {
    /// How long the payload may still run; zero without a page, or with one of a future that never was.
    pub fn left(&self) -> Duration {
        let now = sys::boot_ms();
        let end = self.answered_ms().filter(|at| *at <= now).map_or(0, |at| at.saturating_add(self.after_ms));
        Duration::from_millis(end.saturating_sub(now))
    }

    /// The page is written while it is read: twice the same is whole.
    fn answered_ms(&self) -> Option<u64> {
        let page = fs::File::open(&self.page).ok()?;
        let read = || {
            let mut word = [0; 8];
            page.read_exact_at(&mut word, ANSWERED_AT).ok().map(|()| u64::from_le_bytes(word))
        };
        (0..READS).find_map(|_| read().filter(|first| read() == Some(*first)))
    }
}

impl Payload {
    /// Whether the payload may not run now.
    pub(crate) fn isolated(&self) -> bool {
        self.spec.isolation.as_ref().is_some_and(|isolation| isolation.left().is_zero())
    }

    /// When isolation has to be looked at again.
    pub(crate) fn isolation_wake(&self) -> Option<Instant> {
        let isolation = self.spec.isolation.as_ref().filter(|_| self.can_be_ended())?;
        match self.stage {
            Stage::Watching => Some(Instant::now() + isolation.left()),
            Stage::Signalled(when) => Some(when + Duration::from_millis(isolation.stop_ms)),
            Stage::Killed => None,
        }
    }

    /// Ends the payload when it is time.
    pub fn enforce_isolation(&mut self) {
        let Some(isolation) = self.spec.isolation.as_ref().filter(|_| self.can_be_ended()) else {
            return;
        };
        let (signal, patience) = (isolation.signal, Duration::from_millis(isolation.stop_ms));
        match self.stage {
            Stage::Watching if isolation.left().is_zero() => {
                self.stage = Stage::Signalled(Instant::now());
                let _ = self.signal(signal, "all"); // who ended meanwhile needs none
            }
            Stage::Signalled(when) if when.elapsed() >= patience => {
                self.stage = Stage::Killed;
                let _ = self.signal(libc::SIGKILL, "all");
            }
            _ => {}
        }
    }

    fn can_be_ended(&self) -> bool {
        !matches!(self.phase, Phase::Held | Phase::Ended) && self.ended.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_answer_or_none_leaves_no_time() {
        let path = std::env::temp_dir().join(format!("fleet-page-{}", std::process::id()));
        let isolation = Isolation { page: path.clone(), after_ms: 60_000, signal: libc::SIGTERM, stop_ms: 1 };
        assert!(isolation.left().is_zero());
        let write = |at: u64| {
            let mut page = vec![0; 16];
            page.extend(at.to_le_bytes());
            fs::write(&path, page).unwrap();
        };
        write(sys::boot_ms());
        assert!(isolation.left() > Duration::from_secs(50));
        write(sys::boot_ms().saturating_sub(60_000));
        assert!(isolation.left().is_zero());
        write(sys::boot_ms() + 5_000);
        assert!(isolation.left().is_zero());
        fs::remove_file(path).unwrap();
    }
}
