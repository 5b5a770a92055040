//! The payload's life as the monitor sees it: created, started, who is the main process, ended. It decides nothing: it
//! carries out orders and tells what happened.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::control::Control;
use crate::gate::{Gate, Loading};
use crate::isolation::{self, Stage};
use crate::log::Log;
use crate::notify::{self, NotifySocket};
use crate::record;
use crate::spawn::{self, Refused, Streams, RUNTIME_FAILED};
use crate::spec::{Kind, NotifyAccess, Spec};
use crate::sys::{self, Ended};

/// How long output may still come from processes that outlive the main one, before the exit is told.
pub const DRAIN: Duration = Duration::from_millis(250);
pub const PID_FILE_RETRY: Duration = Duration::from_millis(20);
const MAX_ORPHANS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Held,
    Creating(i32),
    Created,
    Starting(i32),
    /// Its init was let go; the program is not loaded yet.
    Leaving,
    Running,
    /// Type=forking, between the first process's end and a known main one.
    Forked,
    Ended,
}

pub struct Payload {
    pub spec: Spec,
    pub control: Control,
    pub notify: Option<NotifySocket>,
    pub streams: Streams,
    /// The main process when it is not our child: then this tells its end.
    pub stranger: Option<OwnedFd>,
    pub(crate) gate: Option<Gate>,
    pub(crate) loading: Loading,
    pub(crate) console: Option<(UnixListener, RawFd)>,
    pub(crate) log: Log,
    pub(crate) phase: Phase,
    pub(crate) first: Option<i32>,
    pub(crate) main: Option<i32>,
    pub(crate) orphans: VecDeque<(i32, Ended)>,
    pub(crate) story: Vec<Value>,
    pub(crate) input: VecDeque<u8>,
    pub(crate) input_ends: bool,
    pub(crate) ended: Option<(Ended, String)>,
    pub(crate) drain_until: Option<Instant>,
    pub(crate) oom_score: i32,
    pub(crate) leaving: bool,
    pub(crate) stage: Stage,
}

impl Payload {
    pub fn new(
        spec: Spec,
        control: Control,
        log: Log,
        notify: Option<NotifySocket>,
        console: Option<(UnixListener, RawFd)>,
        oom_score: i32,
    ) -> Payload {
        Payload {
            spec,
            control,
            notify,
            streams: Streams::default(),
            stranger: None,
            gate: None,
            loading: Loading::default(),
            console,
            log,
            phase: Phase::Held,
            first: None,
            main: None,
            orphans: VecDeque::new(),
            story: Vec::new(),
            input: VecDeque::new(),
            input_ends: false,
            ended: None,
            drain_until: None,
            oom_score,
            leaving: false,
            stage: Stage::default(),
        }
    }

    /// Creates a container, or starts a command that is not held.
    pub fn begin(&mut self) {
        if let Some(bundle) = &self.spec.bundle {
            let us = std::process::id();
            let path = self.console.as_ref().map(|(_, handle)| format!("/proc/{us}/fd/{handle}/console"));
            match spawn::create(&self.spec, bundle, path.as_deref(), self.oom_score) {
                Ok((pid, streams)) => {
                    // Until the container is there, its streams hold at most what the runtime complains about.
                    self.phase = Phase::Creating(pid);
                    self.streams = streams;
                    self.unblock_streams();
                }
                Err(error) => {
                    let text = format!("{}: calling {}: {error}", self.spec.id, bundle.runtime);
                    self.refuse(Refused { code: RUNTIME_FAILED, text });
                }
            }
        } else if !self.spec.hold {
            self.start_command();
        }
    }

    pub(crate) fn start_command(&mut self) {
        if self.isolated() {
            return self.end_isolated();
        }
        let Some(command) = &self.spec.command else {
            return;
        };
        match spawn::command(&self.spec, command, self.oom_score) {
            Ok((pid, streams)) => {
                self.streams = streams;
                self.unblock_streams();
                self.first = Some(pid);
                self.main = (self.spec.kind != Kind::Forking).then_some(pid);
                self.phase = Phase::Running;
                self.tell_started(pid);
            }
            Err(refused) => self.refuse(refused),
        }
    }

    pub(crate) fn unblock_streams(&self) {
        let streams = &self.streams;
        for fd in [&streams.stdin, &streams.stdout, &streams.stderr, &streams.terminal].into_iter().flatten() {
            let _ = sys::set_nonblocking(fd);
        }
    }

    fn tell_started(&mut self, pid: i32) {
        let (_, start) = record::parent_and_start(pid);
        self.tell(json!({"event": "started", "pid": pid, "start_ticks": start}));
    }

    pub(crate) fn tell(&mut self, event: Value) {
        self.control.tell(&event);
        if event["event"] == "notify" || event["event"] == "mainpid" {
            // Of each kind only the newest is kept, so that the story stays short.
            self.story.retain(|old| old["event"] != event["event"] || is_ready(old) != is_ready(&event));
        }
        self.story.push(event);
    }

    fn refuse(&mut self, refused: Refused) {
        let ended = Ended { code: Some(refused.code), signal: None, dumped: false };
        self.end(ended, refused.text);
    }

    pub(crate) fn end(&mut self, ended: Ended, reason: String) {
        if self.ended.is_none() && self.phase != Phase::Ended {
            let isolated = self.stage != Stage::Watching && reason.is_empty();
            let reason = if isolated { isolation::REASON.to_string() } else { reason };
            self.ended = Some((ended, reason));
            self.drain_until = Some(Instant::now() + DRAIN);
        }
    }

    /// What may not run is as good as ended by a signal.
    fn end_isolated(&mut self) {
        self.end(Ended { code: None, signal: Some(libc::SIGTERM), dumped: false }, isolation::REASON.to_string());
    }

    /// Takes all children that have ended.
    pub fn reap(&mut self) {
        loop {
            match sys::reap() {
                Ok(Some((pid, ended))) => self.child_ended(pid, ended),
                Ok(None) => return,
                Err(_) => {
                    if self.phase == Phase::Forked && self.main.is_none() {
                        self.all_gone();
                    }
                    return;
                }
            }
        }
    }

    fn child_ended(&mut self, pid: i32, ended: Ended) {
        match self.phase {
            Phase::Creating(runtime) if runtime == pid => return self.created(ended),
            Phase::Starting(runtime) if runtime == pid => return self.container_started(ended),
            Phase::Starting(_) if self.main == Some(pid) => {
                self.remember_orphan(pid, ended); // told once the runtime has said how the start went
                return;
            }
            Phase::Leaving if self.main == Some(pid) => {
                self.init_ended();
            }
            _ => {}
        }
        if self.main == Some(pid) {
            self.end(ended, String::new());
        } else if self.first == Some(pid) && self.phase == Phase::Running {
            self.first = None;
            self.tell(json!({"event": "forked", "code": ended.code, "signal": ended.signal}));
            if ended.code == Some(0) {
                self.phase = Phase::Forked;
                self.look_for_main();
            } else {
                self.end(ended, String::new());
            }
        } else {
            self.remember_orphan(pid, ended);
        }
    }

    fn remember_orphan(&mut self, pid: i32, ended: Ended) {
        if self.orphans.len() == MAX_ORPHANS {
            self.orphans.pop_front();
        }
        self.orphans.push_back((pid, ended));
    }

    fn created(&mut self, ended: Ended) {
        let pid_text = fs::read_to_string(self.spec.run_dir.join("pid")).unwrap_or_default();
        match (ended.code, pid_text.trim().parse::<i32>()) {
            (Some(0), Ok(pid)) => {
                if let Some((listener, _)) = self.console.take() {
                    match terminal_from(&listener) {
                        Ok(fd) => self.streams.terminal = Some(fd),
                        Err(error) => {
                            let _ = sys::kill(pid, libc::SIGKILL);
                            let text = format!("{}: the runtime sent no terminal: {error}", self.spec.id);
                            return self.refuse(Refused { code: RUNTIME_FAILED, text });
                        }
                    }
                    self.unblock_streams();
                }
                self.main = Some(pid);
                self.note_init(pid);
                self.phase = Phase::Created;
                self.tell(json!({"event": "created", "pid": pid}));
                if let Some(at) = self.orphans.iter().position(|(orphan, _)| *orphan == pid) {
                    if let Some((_, ended)) = self.orphans.remove(at) {
                        self.end(ended, String::new());
                    }
                }
            }
            _ => {
                // What is in the pipes is the runtime's complaint, which its log has too; it is no output of the payload.
                self.streams = Streams::default();
                self.refuse_runtime();
            }
        }
    }

    fn refuse_runtime(&mut self) {
        let text = spawn::complaint(&self.spec.run_dir);
        self.refuse(Refused { code: spawn::runtime_code(&text), text: format!("{}: {text}", self.spec.id) });
    }

    fn container_started(&mut self, ended: Ended) {
        let Some(pid) = self.main else { return };
        let gone = self.orphans.iter().find(|(orphan, _)| *orphan == pid).map(|(_, ended)| *ended);
        if ended.code != Some(0) {
            if gone.is_none() {
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            return self.refuse_runtime();
        }
        self.loads();
        if let Some(gone) = gone {
            self.end(gone, String::new());
        }
    }

    pub(crate) fn runs(&mut self, pid: i32) {
        self.phase = Phase::Running;
        self.tell_started(pid);
    }

    /// True while only looking again can find a main process.
    pub fn looks_for_main(&self) -> bool {
        self.phase == Phase::Forked && self.main.is_none() && self.spec.pid_file.is_some() && self.ended.is_none()
    }

    /// Type=forking: the main process by the pid file, or the one process that is left.
    pub fn look_for_main(&mut self) {
        if self.phase != Phase::Forked || self.main.is_some() {
            return;
        }
        let members = record::members(&self.spec.payload_cgroups);
        if let Some(path) = &self.spec.pid_file {
            let text = fs::read_to_string(path).unwrap_or_default();
            let Ok(pid) = text.trim().parse::<i32>() else {
                return;
            };
            if let Some((_, ended)) = self.orphans.iter().find(|(orphan, _)| *orphan == pid).copied() {
                self.adopt_main(pid);
                self.end(ended, String::new());
            } else if members.contains(&pid) {
                self.adopt_main(pid);
            }
        } else {
            let us = i32::try_from(std::process::id()).unwrap_or(0);
            let mut left = members.into_iter().filter(|pid| record::parent_and_start(*pid).0 == us);
            if let (Some(pid), None) = (left.next(), left.next()) {
                self.adopt_main(pid);
            }
        }
    }

    fn adopt_main(&mut self, pid: i32) {
        let (parent, start) = record::parent_and_start(pid);
        let us = i32::try_from(std::process::id()).unwrap_or(0);
        self.stranger = if parent == us { None } else { sys::pidfd(pid).ok() };
        self.main = Some(pid);
        if self.phase == Phase::Forked {
            self.phase = Phase::Running;
        }
        self.tell(json!({"event": "mainpid", "pid": pid, "start_ticks": start}));
    }

    /// A main process that was never our child has ended: its code went to its own parent, or comes to us soon.
    pub fn stranger_ended(&mut self) {
        self.stranger = None;
        self.reap();
        if self.ended.is_none() {
            let ended = Ended { code: Some(0), signal: None, dumped: false };
            self.end(ended, String::new());
        }
    }

    fn all_gone(&mut self) {
        self.look_for_main();
        if self.ended.is_some() || self.main.is_some() {
            return;
        }
        let last = self.orphans.back().map(|(_, ended)| *ended);
        let ended = last.unwrap_or(Ended { code: Some(0), signal: None, dumped: false });
        let reason = match &self.spec.pid_file {
            Some(path) => format!("{}: no process is left and none wrote {}", self.spec.id, path.display()),
            None => String::new(),
        };
        self.end(ended, reason);
    }

    /// Takes messages on the notify socket from those who may send them.
    pub fn hear_notify(&mut self) {
        let Some(socket) = &self.notify else { return };
        let mut heard = Vec::new();
        while let Some(message) = socket.next() {
            heard.push(message);
        }
        for message in heard {
            let ours = || record::members(&self.spec.payload_cgroups).contains(&message.pid);
            let owner = self.spec.command.as_ref().and_then(|command| command.uid).unwrap_or(0);
            let accepted = match self.spec.notify {
                NotifyAccess::None => false,
                NotifyAccess::Main => self.main.map_or_else(ours, |main| main == message.pid),
                // A sender that has ended meanwhile (systemd-notify) is known by its user only.
                NotifyAccess::All => {
                    ours() || (!record::exists(message.pid) && (message.uid == 0 || message.uid == owner))
                }
            };
            if !accepted {
                continue;
            }
            let main = notify::value(&message.text, "MAINPID").and_then(|text| text.parse::<i32>().ok());
            if let Some(pid) = main.filter(|pid| Some(*pid) != self.main && self.spec.bundle.is_none()) {
                if record::members(&self.spec.payload_cgroups).contains(&pid) {
                    self.adopt_main(pid);
                }
            }
            self.tell(json!({"event": "notify", "text": message.text, "pid": message.pid}));
        }
    }
}

fn is_ready(event: &Value) -> bool {
    event["text"].as_str().is_some_and(|text| notify::value(text, "READY") == Some("1"))
}

fn terminal_from(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (socket, _) = listener.accept()?;
    let mut name = [0; 4096];
    sys::receive(socket.as_raw_fd(), &mut name)?.fd.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
