//! A disk that can go wrong: a file system (FUSE) that keeps in memory what was not synced, and loses it when it is told to.
//!
//! `fleet-disk BACKING MOUNTPOINT SOCKET` mounts it, prints `ready`, and takes commands on the socket (`control`). It
//! ends, and unmounts, when its standard input does. BACKING has what was synced, one object an inode, and is found
//! again at the next start.

mod backing;
mod control;
mod fs;
mod pending;
mod tree;

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use fuser::{Config, MountOption, SessionACL};

use control::Faults;
use fs::Shell;
use tree::Tree;

fn main() -> ExitCode {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [backing, mountpoint, socket] = &words[..] else {
        eprintln!("usage: fleet-disk BACKING MOUNTPOINT SOCKET");
        return ExitCode::from(2);
    };
    match run(backing, mountpoint, socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-disk: {}: {error}", mountpoint.display());
            ExitCode::FAILURE
        }
    }
}

fn run(backing: &Path, mountpoint: &Path, socket: &Path) -> std::io::Result<()> {
    let tree = Arc::new(Mutex::new(Tree::open(backing)?));
    let faults = Arc::new(Mutex::new(Faults::default()));
    let shell = Shell::new(Arc::clone(&tree), Arc::clone(&faults), backing.to_owned());
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![
        MountOption::FSName("fleet-disk".into()),
        MountOption::DefaultPermissions,
    ];
    let session = fuser::spawn_mount(shell, mountpoint, &config)?;
    let listening = control::listen(socket, tree, faults)?;
    println!("ready");
    std::io::stdout().flush()?;
    // Whoever started it holds the other end of the pipe, and lets it go when it ends, however it ends.
    let mut rest = Vec::new();
    let ended = std::io::stdin().read_to_end(&mut rest);
    drop(listening);
    detach(mountpoint)?;
    drop(session);
    ended.map(|_| ())
}

/// Unmount, also while something there is still open: that gets errors from now on.
fn detach(mountpoint: &Path) -> std::io::Result<()> {
    let path = std::ffi::CString::new(mountpoint.as_os_str().as_bytes())?;
    // SAFETY: the call only reads a string that ends with a zero.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
