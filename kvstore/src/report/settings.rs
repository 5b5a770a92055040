//! How much is logged, in which format and where to: etcd's flags, and etcd's words where one makes no sense.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use serde::Deserialize;
use tracing::level_filters::LevelFilter;

/// What etcd's flags of the log say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `zap`: the shape of the lines.
    pub logger: String,
    pub level: String,
    pub format: String,
    /// `default`, `stderr`, `stdout`, or files.
    pub outputs: Vec<String>,
    pub rotation: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            logger: "zap".into(),
            level: "info".into(),
            format: "json".into(),
            outputs: vec!["default".into()],
            rotation: false,
        }
    }
}

/// Etcd's levels, from the most talkative one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warn => Self::WARN,
            Level::Error => Self::ERROR,
            Level::Panic | Level::Fatal => Self::OFF,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Console,
}

#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    Stdout,
    File(File),
}

impl Output {
    /// Writes a line in one call, so that lines of several threads and programs don't mix. A log that can't be written
    /// stops nobody.
    pub fn write(&self, line: &[u8]) {
        let _ = match self {
            Self::Stderr => io::stderr().write_all(line),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line).and_then(|()| out.flush())
            }
            Self::File(file) => {
                let mut file: &File = file;
                file.write_all(line)
            }
        };
    }

    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl Settings {
    pub(super) fn level(&self) -> Result<Level, String> {
        match self.level.to_lowercase().as_str() {
            "debug" => Ok(Level::Debug),
            "info" | "" => Ok(Level::Info),
            "warn" => Ok(Level::Warn),
            "error" => Ok(Level::Error),
            "dpanic" | "panic" => Ok(Level::Panic),
            "fatal" => Ok(Level::Fatal),
            _ => Err(format!(
                "--log-level: unrecognized level: {:?}; debug, info, warn, error, panic and fatal are known",
                self.level
            )),
        }
    }

    pub(super) fn format(&self) -> Result<Format, String> {
        match self.logger.as_str() {
            "zap" => {}
            "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
            other => return Err(format!("unknown logger option {other:?}")),
        }
        match self.format.as_str() {
            "json" | "" => Ok(Format::Json),
            "console" => Ok(Format::Console),
            other => Err(format!(
                "--log-format: unknown log format: {other}, supported values json, console"
            )),
        }
    }

    /// Opens the files, to write behind what they hold.
    pub(super) fn outputs(&self) -> Result<Vec<Output>, String> {
        if self.rotation {
            return Err(
                "--enable-log-rotation is not known here: leave it to standard error's reader, or to logrotate with \
                 copytruncate"
                    .into(),
            );
        }
        let names: BTreeSet<&str> = self.outputs.iter().map(String::as_str).collect();
        if names.len() > 1 && names.contains("default") {
            return Err("multi logoutput for \"default\" is not supported yet".into());
        }
        // As in zap: that one is there to be rid of all.
        if names.contains("/dev/null") {
            return Ok(Vec::new());
        }
        if names.is_empty() {
            return Ok(vec![Output::Stderr]);
        }
        names.into_iter().map(open).collect()
    }
}

fn open(name: &str) -> Result<Output, String> {
    match name {
        "default" | "stderr" => Ok(Output::Stderr),
        "stdout" => Ok(Output::Stdout),
        "systemd/journal" => Err(
            "--log-outputs: systemd/journal is not known here: systemd writes standard error to its journal".into(),
        ),
        path => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map(Output::File)
            .map_err(|error| {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                    _ => error.to_string(),
                };
                format!("--log-outputs: open sink {path:?}: open {path}: {why}")
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    }

    #[test]
    fn levels_are_etcds() {
        for (text, level) in [
            ("debug", Level::Debug),
            ("INFO", Level::Info),
            ("", Level::Info),
            ("warn", Level::Warn),
            ("error", Level::Error),
            ("panic", Level::Panic),
            ("fatal", Level::Fatal),
        ] {
            assert_eq!(settings(|s| s.level = text.into()).level(), Ok(level));
        }
        let wrong = settings(|s| s.level = "loud".into()).level().unwrap_err();
        assert!(wrong.contains("unrecognized level: \"loud\""), "{wrong}");
    }

    #[test]
    fn outputs_are_merged_as_etcd_does() {
        let of = |names: &[&str]| {
            settings(|s| s.outputs = names.iter().map(|n| (*n).to_owned()).collect()).outputs()
        };
        assert_eq!(of(&["stderr", "stderr", "stdout"]).unwrap().len(), 2);
        assert_eq!(of(&["stderr", "/dev/null"]).unwrap().len(), 0);
        assert!(matches!(of(&[]).unwrap()[..], [Output::Stderr]));
        assert!(of(&["default", "stdout"])
            .unwrap_err()
            .contains("multi logoutput"));
    }
}
