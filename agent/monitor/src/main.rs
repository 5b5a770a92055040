//! fleet-monitor holds one unit process or container and outlives whoever started it: it reaps, logs, listens on a
//! socket and writes a durable exit record. It reads its spec from stdin, answers with its own exit code when it is
//! set up, and lives on as a daemon. It decides nothing.

mod control;
mod gate;
mod isolation;
mod log;
mod notify;
mod orders;
mod payload;
mod record;
mod spawn;
mod spec;
mod streams;
mod sys;

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::control::Control;
use crate::notify::NotifySocket;
use crate::payload::Payload;
use crate::spec::{NotifyAccess, Spec};

const MAX_SPEC_BYTES: u64 = 8 << 20;
const MAX_SOCKET_PATH: usize = 107;
const OWN_OOM_SCORE: &str = "-900";
const OOM_FILE: &str = "/proc/self/oom_score_adj";

fn main() -> ExitCode {
    match prepare().and_then(daemonise) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(ready)) => match hold(ready) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE, // nobody listens any more; the supervisor sees monitor-lost
        },
        Err(text) => {
            eprintln!("fleet-monitor: {text}");
            ExitCode::FAILURE
        }
    }
}

struct Ready {
    payload: Payload,
    signals: OwnedFd,
    _directory: fs::File,
}

fn prepare() -> Result<Ready, String> {
    let mut text = Vec::new();
    io::stdin().take(MAX_SPEC_BYTES).read_to_end(&mut text).map_err(|error| format!("reading the spec: {error}"))?;
    let spec = spec::parse(&text)?;
    let at = |what: &str| {
        let what = format!("{}: {what}", spec.id);
        move |error: io::Error| format!("{what}: {error}")
    };
    for group in &spec.monitor_cgroups {
        record::join(group).map_err(at(&format!("joining {}", group.display())))?;
    }
    let oom_score = fs::read_to_string(OOM_FILE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let _ = record::write_existing(Path::new(OOM_FILE), OWN_OOM_SCORE); // refused to plain users; then it has theirs
    let log = log::Log::open(&spec.log_dir, spec.log_max_bytes, spec.log_max_files)
        .map_err(at(&format!("opening the log in {}", spec.log_dir.display())))?;
    let (directory, listener) = open_run_dir(&spec)?;
    let notify = match spec.notify {
        NotifyAccess::None => None,
        _ => Some(bind_notify(&spec)?),
    };
    let console = match (&spec.bundle, spec.tty) {
        (Some(_), true) => Some(bind_here("console").map_err(at("making its console socket"))?),
        _ => None,
    };
    std::env::set_current_dir("/").map_err(at("leaving its run directory"))?;
    let control = Control::new(listener).map_err(at("making its control socket"))?;
    let signals = sys::child_signals().map_err(at("listening for signals"))?;
    // The runtime finds the socket through this process's descriptor: the path stays short whatever `run_dir` is.
    let console = console.map(|listener| {
        let handle = directory.as_raw_fd();
        (listener, handle)
    });
    let payload = Payload::new(spec, control, log, notify, console, oom_score);
    Ok(Ready { payload, signals, _directory: directory })
}

/// Makes the run directory, stays in it, and binds `control` there: by a short name, as socket paths are limited.
fn open_run_dir(spec: &Spec) -> Result<(fs::File, UnixListener), String> {
    let run_dir = &spec.run_dir;
    let at = |error: io::Error| format!("{}: the run directory {}: {error}", spec.id, run_dir.display());
    // Those who may send notifications reach their socket through this directory; everything else in it is 0600.
    let mode = if spec.notify == NotifyAccess::None { 0o700 } else { 0o711 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(run_dir).map_err(at)?;
    fs::set_permissions(run_dir, fs::Permissions::from_mode(mode)).map_err(at)?;
    std::env::set_current_dir(run_dir).map_err(at)?;
    if UnixStream::connect("control").is_ok() {
        return Err(format!("{}: a monitor lives in {} already", spec.id, run_dir.display()));
    }
    for old in ["exit.json", "pid", "runtime.log"] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
    }
    let listener = bind_here("control").map_err(at)?;
    Ok((fs::File::open(".").map_err(at)?, listener))
}

fn bind_here(name: &str) -> io::Result<UnixListener> {
    let _ = fs::remove_file(name);
    // SAFETY: no memory is passed; nothing else in this process makes files meanwhile.
    let before = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(name);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_notify(spec: &Spec) -> Result<NotifySocket, String> {
    let path = spec.run_dir.join("notify");
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(format!(
            "{}: {} is too long for a socket; the limit is {MAX_SOCKET_PATH} bytes",
            spec.id,
            path.display()
        ));
    }
    NotifySocket::bind(&path).map_err(|error| format!("{}: making {}: {error}", spec.id, path.display()))
}

/// The child goes on in a session of its own, with nothing of the starter's; the starter gets None and leaves.
fn daemonise(ready: Ready) -> Result<Option<Ready>, String> {
    // SAFETY: this process has one thread.
    let pid = sys::check(unsafe { libc::fork() }).map_err(|error| format!("forking: {error}"))?;
    if pid != 0 {
        std::mem::forget(ready); // the sockets are the child's now
        return Ok(None);
    }
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    // SAFETY: plain calls on descriptors that stay open.
    unsafe {
        libc::setsid();
        if let Ok(null) = &null {
            for target in 0..3 {
                libc::dup2(null.as_raw_fd(), target);
            }
        }
        libc::umask(0o077);
    }
    sys::ignore_signals(&[libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTTOU]);
    sys::become_subreaper().map_err(|error| format!("becoming a subreaper: {error}"))?;
    Ok(Some(ready))
}

fn hold(mut ready: Ready) -> io::Result<()> {
    ready.payload.begin();
    let payload = &mut ready.payload;
    loop {
        let outputs = payload.outputs();
        let mut fds: Vec<libc::pollfd> = vec![
            entry(ready.signals.as_raw_fd(), libc::POLLIN),
            entry(payload.control.listener_fd(), libc::POLLIN),
            entry(payload.notify.as_ref().map_or(-1, NotifySocket::fd), libc::POLLIN),
            entry(payload.stranger.as_ref().map_or(-1, AsRawFd::as_raw_fd), libc::POLLIN),
            entry(payload.input_fd().unwrap_or(-1), libc::POLLOUT),
            entry(payload.gate_fd(), libc::POLLIN),
        ];
        let first_output = fds.len();
        fds.extend(outputs.iter().map(|fd| entry(*fd, libc::POLLIN)));
        let first_client = fds.len();
        let takes_input = payload.takes_input();
        fds.extend(payload.control.clients.iter().map(|client| client.poll_entry(takes_input)));
        sys::poll(&mut fds, timeout(payload))?;

        // Messages first: a sender that has ended is judged by the groups it was in, and READY=1 precedes an exit.
        if fds[2].revents != 0 {
            payload.hear_notify();
        }
        for (fd, polled) in outputs.iter().zip(&fds[first_output..first_client]) {
            if polled.revents != 0 {
                payload.read_output(*fd);
            }
        }
        if fds[4].revents != 0 {
            payload.write_input();
        }
        if fds[5].revents != 0 {
            payload.pass_gate();
        }
        serve_clients(payload, &fds[first_client..]);
        if fds[0].revents != 0 {
            let mut signal = [0; std::mem::size_of::<libc::signalfd_siginfo>()];
            while sys::read(ready.signals.as_raw_fd(), &mut signal).is_ok() {}
            payload.reap();
        }
        if fds[3].revents != 0 {
            payload.stranger_ended();
        }
        payload.look_for_program();
        if payload.looks_for_main() {
            payload.look_for_main();
        }
        if fds[1].revents != 0 {
            payload.control.accept();
        }
        payload.enforce_isolation();
        let leave = payload.settle();
        payload.control.sweep();
        if leave {
            break;
        }
    }
    payload.close_log();
    for name in ["control", "notify", "console"] {
        let _ = fs::remove_file(payload.spec.run_dir.join(name));
    }
    Ok(())
}

fn serve_clients(payload: &mut Payload, polled: &[libc::pollfd]) {
    let mut requests = Vec::new();
    for (client, polled) in payload.control.clients.iter_mut().zip(polled) {
        if polled.revents & libc::POLLOUT != 0 {
            client.flush();
        }
        if polled.revents & !libc::POLLOUT != 0 {
            requests.extend(client.receive());
        }
    }
    for request in requests {
        payload.obey(request);
    }
}

fn entry(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn timeout(payload: &Payload) -> i32 {
    let stalled = payload.control.waits().then(|| Instant::now() + control::STALLED_CLIENT);
    match [payload.wake_at(), stalled].into_iter().flatten().min() {
        Some(when) => {
            let left = when.saturating_duration_since(Instant::now()).as_millis() + 1;
            i32::try_from(left).unwrap_or(i32::MAX)
        }
        None => -1,
    }
}
