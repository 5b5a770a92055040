//! The notify socket: takes datagrams as sd_notify sends them, with the kernel's word on who sent them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::sys;

pub const MAX_MESSAGE_BYTES: usize = 4096;

pub struct NotifySocket(UnixDatagram);

pub struct Message {
    pub text: String,
    pub pid: i32,
    pub uid: u32,
}

impl NotifySocket {
    /// Binds at a path that a payload of any user may write to.
    pub fn bind(path: &Path) -> io::Result<NotifySocket> {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        sys::pass_credentials(socket.as_raw_fd())?;
        socket.set_nonblocking(true)?;
        Ok(NotifySocket(socket))
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The next message that names its sender, if one waits.
    pub fn next(&self) -> Option<Message> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        loop {
            let received = sys::receive(self.fd(), &mut buffer).ok()?;
            if let Some((pid, uid)) = received.sender {
                let text = String::from_utf8_lossy(&buffer[..received.length]).trim_end().to_string();
                return Some(Message { text, pid, uid });
            }
        }
    }
}

/// The value of `key` in newline-separated assignments.
pub fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}
