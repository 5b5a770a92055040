//! What flows through the monitor: the payload's output to log and clients, input to it, and the end of all that.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use serde_json::json;

use crate::control::MAX_WAITING_BYTES;
use crate::gate::LOAD_RETRY;
use crate::log::Stream;
use crate::payload::{Payload, Phase, PID_FILE_RETRY};
use crate::record;
use crate::spec::PROTOCOL_VERSION;
use crate::sys;

const READ_BYTES: usize = 64 * 1024;
const LAST_READS: usize = 16;

impl Payload {
    /// Descriptors with output to read; none while an attached client must take some first. Once the payload has ended
    /// nobody is waited for: its exit is told when what its pipes hold is in the log.
    pub fn outputs(&self) -> Vec<RawFd> {
        let ended = self.ended.is_some() || self.phase == Phase::Ended;
        if matches!(self.phase, Phase::Creating(_)) || (self.control.full() && !ended) {
            return Vec::new();
        }
        let streams = &self.streams;
        [&streams.stdout, &streams.stderr, &streams.terminal].into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }

    /// Reads once from an output; false at its end.
    pub fn read_output(&mut self, fd: RawFd) -> bool {
        let mut buffer = [0; READ_BYTES];
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

    /// Until when the loop may sleep.
    pub fn wake_at(&self) -> Option<Instant> {
        let look = self.looks_for_main().then(|| Instant::now() + PID_FILE_RETRY);
        let program = self.awaits_program().then(|| Instant::now() + LOAD_RETRY);
        [self.drain_until, look, program, self.isolation_wake()].into_iter().flatten().min()
    }

    /// Tells the exit once all output is in the log. True when the monitor may leave.
    pub fn settle(&mut self) -> bool {
        if let (Some(until), Some(_)) = (self.drain_until, &self.ended) {
            let streams = &self.streams;
            let dry = streams.stdout.is_none() && streams.stderr.is_none() && streams.terminal.is_none();
            if dry || Instant::now() >= until {
                self.finish();
            }
        }
        let flushed = self.control.flushed();
        if self.leaving && !flushed {
            self.control.end_listeners();
        }
        self.leaving && flushed
    }

    fn finish(&mut self) {
        let mut budget = LAST_READS;
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
            let mut budget = LAST_READS;
            while budget > 0 && self.read_output(fd) {
                budget -= 1;
            }
        }
        self.log.finish(sys::now_ns());
    }
}
