//! The durable exit record, and what /proc and the control groups tell about processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sys;

const KILL_ROUNDS: u32 = 20;

/// Writes `exit.json` so that it is there, whole, after a power loss too.
pub fn save_exit(run_dir: &Path, record: &Value) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = run_dir.join("exit.json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(record.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, run_dir.join("exit.json"))?;
    File::open(run_dir)?.sync_all()
}

pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

/// (parent, start time in ticks) of a process; zeroes when it is gone.
pub fn parent_and_start(pid: i32) -> (i32, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, behind)) = text.rsplit_once(')') else {
        return (0, 0);
    };
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    (i32::try_from(number(1)).unwrap_or(0), number(19))
}

pub fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// All processes in these groups and below them.
pub fn members(groups: &[PathBuf]) -> Vec<i32> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = groups.to_vec();
    while let Some(dir) = waiting.pop() {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        if let Ok(entries) = fs::read_dir(&dir) {
            waiting.extend(
                entries.flatten().filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Sends a signal to everything in the groups. SIGKILL leaves nothing that forked meanwhile.
pub fn signal_all(groups: &[PathBuf], signal: i32) {
    if signal == libc::SIGKILL {
        for group in groups {
            let _ = write_existing(&group.join("cgroup.kill"), "1");
            let _ = write_existing(&group.join("freezer.state"), "FROZEN");
        }
    }
    let rounds = if signal == libc::SIGKILL { KILL_ROUNDS } else { 1 };
    let mut before = Vec::new();
    for _ in 0..rounds {
        let pids = members(groups);
        if pids.is_empty() || pids == before {
            break;
        }
        for pid in &pids {
            let _ = sys::kill(*pid, signal);
        }
        before = pids;
    }
    if signal == libc::SIGKILL {
        for group in groups {
            let _ = write_existing(&group.join("freezer.state"), "THAWED");
        }
    }
}

pub fn join(group: &Path) -> io::Result<()> {
    write_existing(&group.join("cgroup.procs"), "0")
}

pub fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
