//! The system calls that std lacks, each wrapped so that the rest of the program needs no `unsafe`.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A pipe whose two ends close on exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors; both are fresh and owned by nobody else.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain flag calls on a descriptor that the caller holds open.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

pub fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `len` bytes of the slice.
    let count = unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable when one is pending.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before use; the descriptor is fresh.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Back to a new program's signals: nothing blocked, nothing ignored.
pub fn reset_signals() {
    // SAFETY: plain calls with an initialised set; signals that can't be changed answer an error that is of no interest.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        for number in 1..65 {
            libc::signal(number, libc::SIG_DFL);
        }
    }
}

pub fn ignore_signals(numbers: &[libc::c_int]) {
    for number in numbers {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(*number, libc::SIG_IGN) };
    }
}

/// How a reaped process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub dumped: bool,
}

/// Takes one ended child, if there is one. `Err` with ECHILD: there are no children at all.
pub fn reap() -> io::Result<Option<(i32, Ended)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) })?;
    if pid == 0 {
        return Ok(None);
    }
    let ended = if libc::WIFSIGNALED(status) {
        Ended { code: None, signal: Some(libc::WTERMSIG(status)), dumped: libc::WCOREDUMP(status) }
    } else {
        Ended { code: Some(libc::WEXITSTATUS(status)), signal: None, dumped: false }
    };
    Ok(Some((pid, ended)))
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }).map(|_| ())
}

pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(|_| ())
}

/// A descriptor that becomes readable when the process ends, also when it is nobody's child here.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is fresh.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let fd = check(i32::try_from(fd).unwrap_or(-1))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A new terminal: its master, and the path of its slave.
pub fn open_terminal() -> io::Result<(OwnedFd, CString)> {
    let mut name = [0 as libc::c_char; 128];
    // SAFETY: the descriptor is fresh; ptsname_r writes a terminated name into a buffer of the size given.
    unsafe {
        let fd = check(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
        let master = OwnedFd::from_raw_fd(fd);
        check(libc::grantpt(fd))?;
        check(libc::unlockpt(fd))?;
        check(-libc::ptsname_r(fd, name.as_mut_ptr(), name.len()))?;
        Ok((master, std::ffi::CStr::from_ptr(name.as_ptr()).to_owned()))
    }
}

pub fn set_window(fd: RawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &size) }).map(|_| ())
}

/// Receives what was sent with `SCM_RIGHTS` (one descriptor) or `SCM_CREDENTIALS`.
#[derive(Default)]
pub struct Received {
    pub length: usize,
    pub fd: Option<OwnedFd>,
    pub sender: Option<(i32, u32)>,
}

pub fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0u64; 16];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut received = Received::default();
    // SAFETY: every pointer in `message` is to a live local with the length given beside it; the control buffer is
    // aligned for cmsghdr; only the two known kinds are read, with the sizes that the kernel gives them.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control);
        let count = libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC);
        received.length = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len - (data as usize - header as usize)) / mem::size_of::<RawFd>();
                for index in 0..count {
                    let fd = OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned());
                    received.fd.get_or_insert(fd);
                }
            } else if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_CREDENTIALS {
                let sender = data.cast::<libc::ucred>().read_unaligned();
                received.sender = Some((sender.pid, sender.uid));
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok(received)
}

pub fn pass_credentials(socket: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: SO_PASSCRED reads one int.
    check(unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            mem::size_of_val(&on) as u32,
        )
    })
    .map(|_| ())
}

/// The user at the other end of a connected unix socket.
pub fn peer_uid(socket: RawFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = mem::size_of_val(&peer) as u32;
    // SAFETY: SO_PEERCRED writes at most `length` bytes, the size of `peer`.
    check(unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &mut length)
    })?;
    Ok(peer.uid)
}

pub fn euid() -> u32 {
    // SAFETY: no memory is passed and it can't fail.
    unsafe { libc::geteuid() }
}

/// Waits for events; `timeout_ms` of -1 waits for ever.
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<()> {
    // SAFETY: pointer and length are the slice's.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

pub fn now_ns() -> i128 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(_) => 0,
    }
}

pub fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Milliseconds since the machine's boot, suspended time included.
pub fn boot_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes the timespec that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
