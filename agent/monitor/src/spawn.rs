//! Starts the payload: a process with everything a unit may set, or the calls of an OCI runtime.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::record;
use crate::spec::{self, Bundle, Command, Spec};
use crate::sys::{self, check};

pub const RUNTIME_FAILED: i32 = 125;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The monitor's ends of the payload's streams.
#[derive(Default)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

/// A payload that could not be started: systemd's exit code for the step, and a sentence.
#[derive(Debug)]
pub struct Refused {
    pub code: i32,
    pub text: String,
}

struct Step {
    code: u8,
    name: &'static str,
}

const STEPS: &[Step] = &[
    Step { code: 200, name: "changing to its directory" },
    Step { code: 201, name: "setting its nice level" },
    Step { code: 203, name: "executing" },
    Step { code: 205, name: "setting a resource limit" },
    Step { code: 206, name: "setting its out-of-memory score" },
    Step { code: 208, name: "setting up its input" },
    Step { code: 209, name: "setting up its output" },
    Step { code: 216, name: "setting its groups" },
    Step { code: 217, name: "setting its user" },
    Step { code: 219, name: "joining its control group" },
    Step { code: 220, name: "making its session" },
    Step { code: 227, name: "giving up new privileges" },
];

/// What the child needs, made before the fork so that it only has to call the kernel.
struct Prepared<'a> {
    command: &'a Command,
    spec: &'a Spec,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    stdin: RawFd,
    stdout: RawFd,
    stderr: RawFd,
    terminal: Option<CString>,
    oom_score: i32,
}

/// Forks and executes a command; returns once the new program runs. `oom_score` is what it has unless it says otherwise.
pub fn command(spec: &Spec, command: &Command, oom_score: i32) -> Result<(i32, Streams), Refused> {
    let failed = |error: io::Error| Refused { code: 209, text: format!("{}: making its streams: {error}", spec.id) };
    let mut streams = Streams::default();
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    let mut theirs = Vec::new();
    let mut prepared = Prepared {
        command,
        spec,
        candidates: candidates(command).map_err(failed)?,
        argv: command.argv.iter().map(|one| sys::c_string(one)).collect::<io::Result<_>>().map_err(failed)?,
        env: environment(spec, command).map_err(failed)?,
        cwd: sys::c_string(&command.cwd).map_err(failed)?,
        stdin: null.as_raw_fd(),
        stdout: null.as_raw_fd(),
        stderr: null.as_raw_fd(),
        terminal: None,
        oom_score: command.oom_score_adjust.unwrap_or(oom_score),
    };
    if spec.tty {
        let (master, slave) = sys::open_terminal().map_err(failed)?;
        streams.terminal = Some(master);
        prepared.terminal = Some(slave);
    } else {
        make_pipes(spec, &mut streams, &mut theirs).map_err(failed)?;
        prepared.stdout = theirs[0].as_raw_fd();
        prepared.stderr = theirs[1].as_raw_fd();
        prepared.stdin = theirs.get(2).map_or(prepared.stdin, AsRawFd::as_raw_fd);
    }
    let (report, child_report) = sys::pipe().map_err(failed)?;
    // SAFETY: this process has one thread, so the child may do what it likes until it executes or exits.
    let pid = check(unsafe { libc::fork() })
        .map_err(|error| Refused { code: 203, text: format!("{}: forking: {error}", spec.id) })?;
    if pid == 0 {
        let (code, error) = child(&prepared);
        let errno = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
        let _ = sys::write(child_report.as_raw_fd(), &[code, errno[0], errno[1], errno[2], errno[3]]);
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(i32::from(code)) };
    }
    drop(child_report);
    drop(theirs);
    let mut answer = [0; 5];
    match sys::read(report.as_raw_fd(), &mut answer) {
        Ok(5) => {
            let errno = i32::from_ne_bytes([answer[1], answer[2], answer[3], answer[4]]);
            let name = STEPS.iter().find(|step| step.code == answer[0]).map_or("starting", |step| step.name);
            let object = match answer[0] {
                203 if command.path.is_empty() => format!(" {}", command.argv[0]),
                203 => format!(" {}", command.path),
                200 => format!(" {}", command.cwd),
                _ => String::new(),
            };
            let error = io::Error::from_raw_os_error(errno);
            Err(Refused { code: i32::from(answer[0]), text: format!("{}: {name}{object}: {error}", spec.id) })
        }
        _ => Ok((pid, streams)),
    }
}

fn make_pipes(spec: &Spec, streams: &mut Streams, theirs: &mut Vec<OwnedFd>) -> io::Result<()> {
    let (stdout, their_stdout) = sys::pipe()?;
    let (stderr, their_stderr) = sys::pipe()?;
    theirs.extend([their_stdout, their_stderr]);
    streams.stdout = Some(stdout);
    streams.stderr = Some(stderr);
    if spec.stdin_open {
        let (their_stdin, stdin) = sys::pipe()?;
        theirs.push(their_stdin);
        streams.stdin = Some(stdin);
    }
    Ok(())
}

fn candidates(command: &Command) -> io::Result<Vec<CString>> {
    let name = if command.path.is_empty() { &command.argv[0] } else { &command.path };
    if name.contains('/') {
        return Ok(vec![sys::c_string(name)?]);
    }
    let path = command.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| sys::c_string(&format!("{dir}/{name}"))).collect()
}

fn environment(spec: &Spec, command: &Command) -> io::Result<Vec<CString>> {
    let mut env: Vec<CString> =
        command.env.iter().map(|(key, value)| sys::c_string(&format!("{key}={value}"))).collect::<io::Result<_>>()?;
    if spec.notify != spec::NotifyAccess::None && !command.env.contains_key("NOTIFY_SOCKET") {
        env.push(sys::c_string(&format!("NOTIFY_SOCKET={}", spec.run_dir.join("notify").display()))?);
    }
    Ok(env)
}

/// Runs in the child; returns only what went wrong.
fn child(prepared: &Prepared) -> (u8, io::Error) {
    match become_payload(prepared) {
        Ok(error) => (203, error),
        Err((code, error)) => (code, error),
    }
}

fn become_payload(prepared: &Prepared) -> Result<io::Error, (u8, io::Error)> {
    let command = prepared.command;
    let at = |code: u8| move |error: io::Error| (code, error);
    sys::reset_signals();
    for group in &prepared.spec.payload_cgroups {
        record::join(group).map_err(at(219))?;
    }
    // SAFETY (all calls below): arguments are plain numbers or pointers to live, terminated values in `prepared`.
    check(unsafe { libc::setsid() }).map_err(at(220))?;
    if let Some(slave) = &prepared.terminal {
        unsafe {
            let fd = check(libc::open(slave.as_ptr(), libc::O_RDWR)).map_err(at(208))?;
            check(libc::ioctl(fd, libc::TIOCSCTTY, 0)).map_err(at(208))?;
            if let Some(uid) = command.uid {
                check(libc::fchown(fd, uid, u32::MAX)).map_err(at(208))?;
            }
            for target in 0..3 {
                check(libc::dup2(fd, target)).map_err(at(209))?;
            }
            if fd > 2 {
                libc::close(fd);
            }
        }
    } else {
        for (fd, target) in [(prepared.stdin, 0), (prepared.stdout, 1), (prepared.stderr, 2)] {
            check(unsafe { libc::dup2(fd, target) }).map_err(at(if target == 0 { 208 } else { 209 }))?;
        }
    }
    record::write_existing(Path::new("/proc/self/oom_score_adj"), &prepared.oom_score.to_string())
        .or_else(|error| if command.oom_score_adjust.is_some() { Err(error) } else { Ok(()) })
        .map_err(at(206))?;
    if let Some(nice) = command.nice {
        check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map_err(at(201))?;
    }
    for (name, (soft, hard)) in &command.rlimits {
        if let Some(number) = spec::rlimit(name) {
            set_limit(number, *soft, *hard).map_err(at(205))?;
        }
    }
    become_user(command)?;
    if command.no_new_privileges {
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map_err(at(227))?;
    }
    unsafe { libc::umask(command.umask) };
    if let Err(error) = check(unsafe { libc::chdir(prepared.cwd.as_ptr()) }) {
        let missing = error.kind() == io::ErrorKind::NotFound;
        if !(missing && command.cwd_optional) {
            return Err((200, error));
        }
        check(unsafe { libc::chdir(c"/".as_ptr()) }).map_err(at(200))?;
    }
    let argv = pointers(&prepared.argv);
    let env = pointers(&prepared.env);
    let mut refused = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in &prepared.candidates {
        unsafe { libc::execve(candidate.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::NotFound {
            refused = error;
        }
    }
    Ok(refused)
}

fn become_user(command: &Command) -> Result<(), (u8, io::Error)> {
    if command.uid.is_none() && command.gid.is_none() && command.groups.is_empty() {
        return Ok(());
    }
    // SAFETY: the pointer is to `groups`, with its own length.
    unsafe {
        check(libc::setgroups(command.groups.len(), command.groups.as_ptr())).map_err(|error| (216, error))?;
        if let Some(gid) = command.gid {
            check(libc::setresgid(gid, gid, gid)).map_err(|error| (216, error))?;
        }
        if let Some(uid) = command.uid {
            check(libc::setresuid(uid, uid, uid)).map_err(|error| (217, error))?;
        }
    }
    Ok(())
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Sets a limit; where the hard one may not be raised, both stay within it.
fn set_limit(number: libc::__rlimit_resource_t, soft: i64, hard: i64) -> io::Result<()> {
    let value = |given: i64| u64::try_from(given).unwrap_or(libc::RLIM_INFINITY);
    let wanted = libc::rlimit { rlim_cur: value(soft).min(value(hard)), rlim_max: value(hard) };
    let mut have = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both point to live rlimit values.
    unsafe {
        if check(libc::setrlimit(number, &wanted)).is_ok() {
            return Ok(());
        }
        check(libc::getrlimit(number, &mut have))?;
        let capped =
            libc::rlimit { rlim_cur: wanted.rlim_cur.min(have.rlim_max), rlim_max: wanted.rlim_max.min(have.rlim_max) };
        check(libc::setrlimit(number, &capped)).map(|_| ())
    }
}

/// Calls `<runtime> create`; the container's init keeps the streams. `console` is where the runtime sends the terminal.
pub fn create(spec: &Spec, bundle: &Bundle, console: Option<&str>, oom_score: i32) -> io::Result<(i32, Streams)> {
    let mut streams = Streams::default();
    let mut theirs = Vec::new();
    let mut call = runtime(spec, bundle, oom_score);
    call.arg("create").arg("--bundle").arg(&bundle.path).arg("--pid-file").arg(spec.run_dir.join("pid"));
    match console {
        Some(path) => {
            call.arg("--console-socket").arg(path);
        }
        None => {
            make_pipes(spec, &mut streams, &mut theirs)?;
            let mut theirs = theirs.into_iter();
            call.stdout(theirs.next().map_or_else(std::process::Stdio::null, Into::into));
            call.stderr(theirs.next().map_or_else(std::process::Stdio::null, Into::into));
            call.stdin(theirs.next().map_or_else(std::process::Stdio::null, Into::into));
        }
    }
    call.arg(&bundle.container_id);
    Ok((run(&mut call)?, streams))
}

/// Calls `<runtime> start`.
pub fn start(spec: &Spec, bundle: &Bundle, oom_score: i32) -> io::Result<i32> {
    run(runtime(spec, bundle, oom_score).arg("start").arg(&bundle.container_id))
}

fn runtime(spec: &Spec, bundle: &Bundle, oom_score: i32) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let mut call = std::process::Command::new(&bundle.runtime);
    if let Some(root) = &bundle.runtime_root {
        call.arg("--root").arg(root);
    }
    call.arg("--log").arg(spec.run_dir.join("runtime.log")).arg("--log-format").arg("json");
    call.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    // SAFETY: this process has one thread, so the closure may allocate; it resets what the monitor set for itself.
    unsafe {
        call.pre_exec(move || {
            sys::reset_signals();
            libc::umask(0o022);
            let _ = record::write_existing(Path::new("/proc/self/oom_score_adj"), &oom_score.to_string());
            Ok(())
        });
    }
    call
}

fn run(call: &mut std::process::Command) -> io::Result<i32> {
    let child = call.spawn()?;
    i32::try_from(child.id()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// The last complaint in the runtime's log.
pub fn complaint(run_dir: &Path) -> String {
    let text = fs::read_to_string(run_dir.join("runtime.log")).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        (entry["level"] == "error").then(|| entry["msg"].as_str().unwrap_or_default().to_string())
    });
    last.unwrap_or_else(|| "the runtime gave no reason".to_string())
}

/// Docker's exit code for a container that could not be started.
pub fn runtime_code(text: &str) -> i32 {
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
