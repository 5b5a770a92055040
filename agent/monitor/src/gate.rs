//! Lets a created container go without a call of its runtime, which takes 6 ms: runc's init waits until somebody opens
//! the FIFO in the container's state directory, writes a byte and executes the program; `runc start` does no more than
//! read that byte and remove the FIFO. A container runs once its program is loaded in init's place: a signal before that
//! would end the runtime's init in its own way.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::payload::{Payload, Phase};
use crate::spec::Bundle;
use crate::sys;

const FIFO: &str = "exec.fifo";
/// How often is looked whether the program is loaded: nothing tells it.
pub const LOAD_RETRY: Duration = Duration::from_millis(1);
/// A container whose program is the very file that its init runs would be looked at for ever.
const LOAD_PATIENCE: Duration = Duration::from_secs(5);

/// An opened FIFO at which a container's init waits.
pub struct Gate {
    path: PathBuf,
    fifo: File,
    passed: bool,
}

/// What is known of a container's init, which its program takes the place of.
#[derive(Default)]
pub struct Loading {
    /// The file that it runs: device and inode.
    init: Option<(u64, u64)>,
    /// Set while the program is awaited.
    until: Option<Instant>,
}

impl Gate {
    /// None where there is none to open: then the runtime itself has to be called.
    pub fn open(bundle: &Bundle) -> Option<Gate> {
        if !bundle.gate {
            return None;
        }
        let path = bundle.runtime_root.as_ref()?.join(&bundle.container_id).join(FIFO);
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let fifo = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
        fifo.metadata().ok()?.file_type().is_fifo().then_some(Gate { path, fifo, passed: false })
    }

    /// Takes init's byte; true once it has let the FIFO go, too, which it does last of all, hooks included.
    fn left(&mut self) -> bool {
        loop {
            match sys::read(self.fifo.as_raw_fd(), &mut [0; 8]) {
                Ok(0) => return self.passed,
                Ok(_) if !self.passed => {
                    self.passed = true;
                    let _ = fs::remove_file(&self.path); // by which the runtime knows that it runs
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Payload {
    pub fn gate_fd(&self) -> RawFd {
        self.gate.as_ref().map_or(-1, |gate| gate.fifo.as_raw_fd())
    }

    /// Looks whether init has gone through; nothing happens as long as it has not.
    pub fn pass_gate(&mut self) {
        if self.gate.as_mut().is_some_and(Gate::left) {
            self.gate = None;
            self.loads();
        }
    }

    /// Notes what a created container's init is.
    pub(crate) fn note_init(&mut self, pid: i32) {
        self.loading.init = executed(pid);
    }

    /// Init has nothing to do any more but to load the program.
    pub(crate) fn loads(&mut self) {
        self.phase = Phase::Leaving;
        self.loading.until = Some(Instant::now() + LOAD_PATIENCE);
        self.look_for_program();
    }

    /// True while only looking again can tell that the program is loaded.
    pub fn awaits_program(&self) -> bool {
        self.loading.until.is_some() && self.ended.is_none()
    }

    /// Tells the start once the program is loaded, or init is gone.
    pub fn look_for_program(&mut self) {
        let (Some(until), Some(pid)) = (self.loading.until, self.main) else { return };
        let waits = self.loading.init.is_some() && executed(pid) == self.loading.init;
        if !waits || Instant::now() >= until {
            self.loading.until = None;
            self.runs(pid);
        }
    }

    /// Init is gone, or what took its place: what it said last comes first.
    pub(crate) fn init_ended(&mut self) {
        self.pass_gate();
        self.look_for_program();
        self.gate = None;
    }
}

/// Device and inode of what a process executes.
fn executed(pid: i32) -> Option<(u64, u64)> {
    let found = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((found.dev(), found.ino()))
}
