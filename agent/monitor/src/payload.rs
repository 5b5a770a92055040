//! The payload's life as the monitor sees it: created, started, who is the main process, ended. It decides nothing: it
//! carries out orders and tells what happened.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::control::{Control, Order, Request, MAX_WAITING_BYTES};
use crate::log::{Log, Stream};
use crate::notify::{self, NotifySocket};
use crate::record;
use crate::spawn::{self, Refused, Streams};
use crate::spec::{Kind, NotifyAccess, Spec, PROTOCOL_VERSION};
use crate::sys::{self, Ended};

/// How long output may still come from processes that outlive the main one, before the exit is told.
pub const DRAIN: Duration = Duration::from_millis(250);
pub const PID_FILE_RETRY: Duration = Duration::from_millis(20);
const MAX_ORPHANS: usize = 64;
const LAST_DRAIN_BYTES: usize = 1 << 20;
const RUNTIME_FAILED: i32 = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Held,
    Creating(i32),
    Created,
    Starting(i32),
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
    console: Option<(UnixListener, RawFd)>,
    log: Log,
    phase: Phase,
    first: Option<i32>,
    main: Option<i32>,
    orphans: VecDeque<(i32, Ended)>,
    story: Vec<Value>,
    input: VecDeque<u8>,
    input_ends: bool,
    ended: Option<(Ended, String)>,
    drain_until: Option<Instant>,
    oom_score: i32,
    leaving: bool,
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

    fn start_command(&mut self) {
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

    fn unblock_streams(&self) {
        let streams = &self.streams;
        for fd in [&streams.stdin, &streams.stdout, &streams.stderr, &streams.terminal].into_iter().flatten() {
            let _ = sys::set_nonblocking(fd);
        }
    }

    fn tell_started(&mut self, pid: i32) {
        let (_, start) = record::parent_and_start(pid);
        self.tell(json!({"event": "started", "pid": pid, "start_ticks": start}));
    }

    fn tell(&mut self, event: Value) {
        self.control.tell(&event);
        if event["event"] == "notify" && !is_ready(&event) {
            // Of progress texts only the newest is kept, so that the story stays short.
            self.story.retain(|old| old["event"] != "notify" || is_ready(old));
        }
        self.story.push(event);
    }

    fn refuse(&mut self, refused: Refused) {
        let ended = Ended { code: Some(refused.code), signal: None, dumped: false };
        self.end(ended, refused.text);
    }

    fn end(&mut self, ended: Ended, reason: String) {
        if self.ended.is_none() && self.phase != Phase::Ended {
            self.ended = Some((ended, reason));
            self.drain_until = Some(Instant::now() + DRAIN);
        }
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
        self.refuse(Refused { code: runtime_code(&text), text: format!("{}: {text}", self.spec.id) });
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
        self.phase = Phase::Running;
        self.tell_started(pid);
        if let Some(gone) = gone {
            self.end(gone, String::new());
        }
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

    /// Descriptors with output to read; none while an attached client must take some first.
    pub fn outputs(&self) -> Vec<RawFd> {
        if matches!(self.phase, Phase::Creating(_)) || self.control.full() {
            return Vec::new();
        }
        let streams = &self.streams;
        [&streams.stdout, &streams.stderr, &streams.terminal].into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }

    /// Reads once from an output; false at its end.
    pub fn read_output(&mut self, fd: RawFd) -> bool {
        let mut buffer = [0; 64 * 1024];
        let stream = match &self.streams.stderr {
            Some(stderr) if stderr.as_raw_fd() == fd => Stream::Stderr,
            _ => Stream::Stdout,
        };
        match sys::read(fd, &mut buffer) {
            Ok(count) if count > 0 => {
                self.log.take(stream, &buffer[..count], sys::now_ns());
                self.control.output(stream, &buffer[..count]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            _ => {
                // The end of a pipe, or EIO: nobody has the terminal open any more.
                let streams = &mut self.streams;
                for place in [&mut streams.stdout, &mut streams.stderr, &mut streams.terminal] {
                    if place.as_ref().is_some_and(|one| one.as_raw_fd() == fd) {
                        *place = None;
                    }
                }
                false
            }
        }
    }

    /// Where input goes, if some waits.
    pub fn input_fd(&self) -> Option<RawFd> {
        let target = self.streams.stdin.as_ref().or(self.streams.terminal.as_ref())?;
        (!self.input.is_empty()).then(|| target.as_raw_fd())
    }

    pub fn takes_input(&self) -> bool {
        self.input.len() < MAX_WAITING_BYTES
    }

    pub fn write_input(&mut self) {
        while let Some(fd) = self.input_fd() {
            let (head, _) = self.input.as_slices();
            match sys::write(fd, head) {
                Ok(count) => {
                    self.input.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.input.clear();
                    self.streams.stdin = None;
                }
            }
        }
        if self.input_ends && self.input.is_empty() {
            self.streams.stdin = None;
        }
    }

    /// Carries out what a client asks for.
    pub fn obey(&mut self, request: Request) {
        match request {
            Request::Input(data) => {
                if self.spec.stdin_open && !self.input_ends && self.phase != Phase::Ended {
                    self.input.extend(data);
                    self.write_input();
                }
            }
            Request::EndOfInput => {
                if self.spec.tty {
                    self.input.push_back(4);
                } else {
                    self.input_ends = true;
                }
                self.write_input();
            }
            Request::Order(client, order) => {
                let n = order.n;
                let op = order.op.clone();
                let result = self.order(client, order);
                let obeyed = result.is_ok();
                self.control.answer(client, n, result);
                if obeyed && op == "hello" {
                    self.control.follow(client, &self.story);
                }
                if obeyed && op == "attach" {
                    self.control.attach(client);
                    if self.phase == Phase::Ended {
                        self.control.end_attached();
                    }
                }
            }
        }
    }

    fn order(&mut self, _client: u64, order: Order) -> Result<Value, String> {
        match order.op.as_str() {
            "hello" | "attach" if order.version != PROTOCOL_VERSION => {
                Err(format!("this monitor speaks version {PROTOCOL_VERSION}, not {}", order.version))
            }
            "hello" => Ok(json!({"id": self.spec.id, "pid": std::process::id(), "version": PROTOCOL_VERSION})),
            "attach" => Ok(json!({})),
            "start" => self.start(),
            "signal" => self.signal(order.signal, &order.whom),
            "resize" => match &self.streams.terminal {
                Some(fd) => sys::set_window(fd.as_raw_fd(), order.rows, order.columns)
                    .map(|()| json!({}))
                    .map_err(|error| format!("{}: its terminal can't be resized: {error}", self.spec.id)),
                None => Err(format!("{} has no terminal", self.spec.id)),
            },
            "forget" if self.phase == Phase::Ended => {
                self.leaving = true;
                Ok(json!({}))
            }
            "forget" => Err(format!("{} has not ended; it can't be forgotten", self.spec.id)),
            other => Err(format!("there is no order `{other}`")),
        }
    }

    fn start(&mut self) -> Result<Value, String> {
        if self.ended.is_some() {
            return Err(format!("{} has ended", self.spec.id));
        }
        match (self.phase, &self.spec.bundle) {
            (Phase::Held, None) => self.start_command(),
            (Phase::Created, Some(bundle)) => match spawn::start(&self.spec, bundle, self.oom_score) {
                Ok(pid) => self.phase = Phase::Starting(pid),
                Err(error) => return Err(format!("{}: calling {}: {error}", self.spec.id, bundle.runtime)),
            },
            (Phase::Creating(_), _) => return Err(format!("{} is not created yet", self.spec.id)),
            _ => return Err(format!("{} was started before", self.spec.id)),
        }
        Ok(json!({}))
    }

    fn signal(&mut self, signal: i32, whom: &str) -> Result<Value, String> {
        if !(0..=64).contains(&signal) {
            return Err(format!("there is no signal {signal}"));
        }
        let main = self.main.or(self.first).filter(|_| self.ended.is_none() && self.phase != Phase::Ended);
        match whom {
            "all" => {
                record::signal_all(&self.spec.payload_cgroups, signal);
                if self.spec.payload_cgroups.is_empty() {
                    if let Some(pid) = main {
                        let _ = sys::kill(-pid, signal);
                    }
                }
            }
            "main" => {
                if let Some(pid) = main {
                    sys::kill(pid, signal).map_err(|error| format!("{}: signal {signal}: {error}", self.spec.id))?;
                }
            }
            other => return Err(format!("signals go to `main` or `all`, not `{other}`")),
        }
        Ok(json!({}))
    }

    /// Until when the loop may sleep.
    pub fn wake_at(&self) -> Option<Instant> {
        let look = self.looks_for_main().then(|| Instant::now() + PID_FILE_RETRY);
        [self.drain_until, look].into_iter().flatten().min()
    }

    /// Tells the exit once all output is in the log. True when the monitor may leave.
    pub fn settle(&mut self) -> bool {
        if let (Some(until), Some(_)) = (self.drain_until, &self.ended) {
            if self.control.full() {
                self.drain_until = Some(Instant::now() + DRAIN);
            } else {
                let streams = &self.streams;
                let dry = streams.stdout.is_none() && streams.stderr.is_none() && streams.terminal.is_none();
                if dry || Instant::now() >= until {
                    self.finish();
                }
            }
        }
        self.leaving && self.control.flushed()
    }

    fn finish(&mut self) {
        let mut budget = LAST_DRAIN_BYTES / (64 * 1024);
        for fd in self.outputs() {
            while budget > 0 && self.read_output(fd) {
                budget -= 1;
            }
        }
        self.drain_until = None;
        let Some((ended, reason)) = self.ended.take() else {
            return;
        };
        self.log.finish(sys::now_ns());
        let event = json!({
            "event": "exited", "code": ended.code, "signal": ended.signal, "dumped": ended.dumped, "reason": reason,
            "at": sys::now_ns() as f64 / 1e9, "boot": record::boot_id(), "id": self.spec.id, "version": PROTOCOL_VERSION,
        });
        // On a full disk the exit is still told to whoever listens now.
        let _ = record::save_exit(&self.spec.run_dir, &event);
        self.phase = Phase::Ended;
        self.streams.stdin = None;
        self.tell(event);
        self.control.end_attached();
    }

    /// Writes what is left of output that came after the exit.
    pub fn close_log(&mut self) {
        for fd in self.outputs() {
            let mut budget = LAST_DRAIN_BYTES / (64 * 1024);
            while budget > 0 && self.read_output(fd) {
                budget -= 1;
            }
        }
        self.log.finish(sys::now_ns());
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

/// Docker's exit code for a container that could not be started.
fn runtime_code(text: &str) -> i32 {
    let text = text.to_lowercase();
    let program = text.contains("exec:") || text.contains("exec /");
    if program && (text.contains("executable file not found") || text.contains("no such file or directory")) {
        127
    } else if program && (text.contains("permission denied") || text.contains("is a directory")) {
        126
    } else {
        RUNTIME_FAILED
    }
}
