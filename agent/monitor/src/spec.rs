//! What the monitor is told to hold: the versioned spec that arrives on stdin. Plain data, checked once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::isolation::Isolation;

pub const PROTOCOL_VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
pub struct Spec {
    pub version: u32,
    pub id: String,
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    pub command: Option<Command>,
    pub bundle: Option<Bundle>,
    #[serde(rename = "type", default)]
    pub kind: Kind,
    #[serde(default)]
    pub hold: bool,
    #[serde(default)]
    pub monitor_cgroups: Vec<PathBuf>,
    #[serde(default)]
    pub payload_cgroups: Vec<PathBuf>,
    #[serde(default)]
    pub tty: bool,
    #[serde(default)]
    pub stdin_open: bool,
    #[serde(default)]
    pub notify: NotifyAccess,
    pub pid_file: Option<PathBuf>,
    pub log_max_bytes: u64,
    pub log_max_files: u64,
    pub isolation: Option<Isolation>,
}

#[derive(Debug, Deserialize)]
pub struct Command {
    pub argv: Vec<String>,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    #[serde(default)]
    pub cwd_optional: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    #[serde(default)]
    pub groups: Vec<u32>,
    pub umask: u32,
    pub nice: Option<i32>,
    pub oom_score_adjust: Option<i32>,
    #[serde(default)]
    pub rlimits: BTreeMap<String, (i64, i64)>,
    #[serde(default)]
    pub no_new_privileges: bool,
}

#[derive(Debug, Deserialize)]
pub struct Bundle {
    pub path: PathBuf,
    pub container_id: String,
    pub runtime: String,
    pub runtime_root: Option<PathBuf>,
    /// The runtime is runc: its init waits at a gate that others can open, too.
    #[serde(default)]
    pub gate: bool,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Simple,
    Exec,
    Oneshot,
    Forking,
    Notify,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum NotifyAccess {
    #[default]
    None,
    Main,
    All,
}

/// Reads a spec and refuses what can't be held; the error is a sentence.
pub fn parse(text: &[u8]) -> Result<Spec, String> {
    let spec: Spec = serde_json::from_slice(text).map_err(|error| format!("the spec can't be read: {error}"))?;
    if spec.version != PROTOCOL_VERSION {
        return Err(format!("the spec has version {}, this fleet-monitor knows {PROTOCOL_VERSION}", spec.version));
    }
    if !spec.run_dir.is_absolute() || !spec.log_dir.is_absolute() {
        return Err("run_dir and log_dir must be absolute paths".to_string());
    }
    if spec.command.is_some() == spec.bundle.is_some() {
        return Err("a spec has either a command or a bundle".to_string());
    }
    if spec.log_max_files == 0 || spec.log_max_bytes < 1024 {
        return Err("a log needs at least one file of 1024 bytes".to_string());
    }
    if let Some(command) = &spec.command {
        let texts = command.argv.iter().chain(command.env.keys()).chain(command.env.values());
        if command.argv.is_empty() || texts.chain([&command.path, &command.cwd]).any(|text| text.contains('\0')) {
            return Err("a command needs an argv, and no NUL byte anywhere".to_string());
        }
        if let Some(name) = command.rlimits.keys().find(|name| rlimit(name).is_none()) {
            return Err(format!("there is no resource limit called {name}"));
        }
    }
    Ok(spec)
}

/// The kernel's number of a resource limit as unit files name it, without the `Limit` in front.
pub fn rlimit(name: &str) -> Option<libc::__rlimit_resource_t> {
    Some(match name {
        "CPU" => libc::RLIMIT_CPU,
        "FSIZE" => libc::RLIMIT_FSIZE,
        "DATA" => libc::RLIMIT_DATA,
        "STACK" => libc::RLIMIT_STACK,
        "CORE" => libc::RLIMIT_CORE,
        "RSS" => libc::RLIMIT_RSS,
        "NOFILE" => libc::RLIMIT_NOFILE,
        "AS" => libc::RLIMIT_AS,
        "NPROC" => libc::RLIMIT_NPROC,
        "MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "LOCKS" => libc::RLIMIT_LOCKS,
        "SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "NICE" => libc::RLIMIT_NICE,
        "RTPRIO" => libc::RLIMIT_RTPRIO,
        "RTTIME" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(extra: &str) -> String {
        format!(
            r#"{{"version":1,"id":"a","run_dir":"/r","log_dir":"/l","log_max_bytes":4096,"log_max_files":2{extra}}}"#
        )
    }

    #[test]
    fn refuses_both_and_neither_payload() {
        assert!(parse(text("").as_bytes()).unwrap_err().contains("either a command or a bundle"));
        let command = r#","command":{"argv":["/bin/true"],"cwd":"/","umask":18}"#;
        assert!(parse(text(command).as_bytes()).is_ok());
        let both = format!(r#"{command},"bundle":{{"path":"/b","container_id":"c","runtime":"runc"}}"#);
        assert!(parse(text(&both).as_bytes()).is_err());
    }

    #[test]
    fn refuses_another_version_and_unknown_limits() {
        let other = text("").replace("\"version\":1", "\"version\":9");
        assert!(parse(other.as_bytes()).unwrap_err().contains("version 9"));
        let limit = r#","command":{"argv":["x"],"cwd":"/","umask":18,"rlimits":{"FOO":[1,1]}}"#;
        assert!(parse(text(limit).as_bytes()).unwrap_err().contains("FOO"));
    }
}
