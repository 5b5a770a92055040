//! What the kernel tells of this process, under the names of Prometheus' clients.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name, kind and value.
pub type Line = (&'static str, &'static str, f64);

/// When the process began, in seconds since 1970.
static STARTED: LazyLock<f64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0.0, |since| since.as_secs_f64());
    now - age().unwrap_or(0.0)
});

/// Fields of `/proc/self/stat` after the name of the program, which may hold anything.
fn stat() -> Option<Vec<u64>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let rest = text.rsplit_once(')')?.1;
    let number = |field: &str| field.parse().unwrap_or(0);
    Some(rest.split_whitespace().map(number).collect())
}

#[allow(clippy::cast_precision_loss)] // measures, not accounts
fn setting(name: libc::c_int) -> f64 {
    // SAFETY: asks for a constant of the system.
    unsafe { libc::sysconf(name) as f64 }
}

#[allow(clippy::cast_precision_loss)]
fn age() -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let began = *stat()?.get(19)? as f64 / setting(libc::_SC_CLK_TCK);
    Some(uptime - began)
}

fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|l| l.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// The lines; what the kernel does not tell is left out.
#[allow(clippy::cast_precision_loss)]
pub fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(stat) = stat() {
        let at = |field: usize| stat.get(field).copied().unwrap_or(0) as f64;
        let ticks = setting(libc::_SC_CLK_TCK);
        let page = setting(libc::_SC_PAGESIZE);
        lines.extend([
            (
                "process_cpu_seconds_total",
                "counter",
                (at(11) + at(12)) / ticks,
            ),
            ("process_virtual_memory_bytes", "gauge", at(20)),
            ("process_resident_memory_bytes", "gauge", at(21) * page),
            ("process_start_time_seconds", "gauge", *STARTED),
        ]);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = open.count() as f64;
        lines.extend([
            ("process_open_fds", "gauge", open),
            ("os_fd_used", "gauge", open),
        ]);
    }
    if let Some(most) = most_files() {
        lines.extend([
            ("process_max_fds", "gauge", most),
            ("os_fd_limit", "gauge", most),
        ]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let lines = lines();
        let get = |name| lines.iter().find(|line| line.0 == name).unwrap().2;
        assert!(get("process_resident_memory_bytes") > 500_000.0);
        assert!(get("process_virtual_memory_bytes") > get("process_resident_memory_bytes"));
        assert!(get("process_open_fds") >= 3.0);
        assert!(get("process_max_fds") >= get("process_open_fds"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - get("process_start_time_seconds");
        assert!((-0.5..3600.0).contains(&age), "{age}");
    }
}
