//! The socket `control`: one JSON object a line for orders and events, frames for attached streams. It only moves
//! bytes and reads orders; what they do is `payload`'s business.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{json, Value};

use crate::log::Stream;
use crate::sys;

pub const MAX_CLIENTS: usize = 64;
pub const MAX_LINE_BYTES: usize = 64 * 1024;
pub const MAX_WAITING_BYTES: usize = 1 << 20;
/// What waits for an attached client at most, which is more than a payload that has ended can leave in its pipes.
pub const MAX_LAST_BYTES: usize = 4 << 20;
/// A client that takes nothing for this long while the payload, or the monitor's end, waits for it is dropped.
pub const STALLED_CLIENT: Duration = Duration::from_secs(30);
const MAX_FRAME_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
pub struct Order {
    pub op: String,
    #[serde(default)]
    pub n: u64,
    #[serde(default)]
    pub version: u32,
    #[serde(default)]
    pub signal: i32,
    #[serde(default)]
    pub whom: String,
    #[serde(default)]
    pub rows: u16,
    #[serde(default)]
    pub columns: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Unknown,
    Control,
    Attached,
}

pub struct Client {
    pub id: u64,
    socket: UnixStream,
    role: Role,
    input: Vec<u8>,
    output: VecDeque<u8>,
    progress: Instant,
    closing: bool,
    gone: bool,
}

/// What a client asks for.
pub enum Request {
    Order(u64, Order),
    Input(Vec<u8>),
    EndOfInput,
}

pub struct Control {
    listener: UnixListener,
    pub clients: Vec<Client>,
    next_id: u64,
}

impl Control {
    pub fn new(listener: UnixListener) -> io::Result<Control> {
        listener.set_nonblocking(true)?;
        Ok(Control { listener, clients: Vec::new(), next_id: 1 })
    }

    pub fn listener_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// Takes waiting connections of this user or root.
    pub fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let allowed = sys::peer_uid(socket.as_raw_fd()).is_ok_and(|uid| uid == 0 || uid == sys::euid());
            if !allowed || self.clients.len() >= MAX_CLIENTS || socket.set_nonblocking(true).is_err() {
                continue;
            }
            self.clients.push(Client {
                id: self.next_id,
                socket,
                role: Role::Unknown,
                input: Vec::new(),
                output: VecDeque::new(),
                progress: Instant::now(),
                closing: false,
                gone: false,
            });
            self.next_id += 1;
        }
    }

    pub fn answer(&mut self, id: u64, n: u64, result: Result<Value, String>) {
        let mut message = match result {
            Ok(Value::Object(fields)) => Value::Object(fields),
            Ok(_) => json!({}),
            Err(text) => json!({ "error": text }),
        };
        message["ok"] = Value::Bool(message.get("error").is_none());
        message["n"] = json!(n);
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.send_line(&message);
        }
    }

    /// Makes a client one that hears events, beginning with the story so far.
    pub fn follow(&mut self, id: u64, story: &[Value]) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.role = Role::Control;
            for event in story {
                client.send_line(event);
            }
        }
    }

    pub fn attach(&mut self, id: u64) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.role = Role::Attached;
        }
    }

    pub fn tell(&mut self, event: &Value) {
        for client in self.clients.iter_mut().filter(|client| client.role == Role::Control) {
            // A payload that floods its notify socket must not cost a slow listener the events that matter.
            if event["event"] != "notify" || client.output.len() < MAX_WAITING_BYTES {
                client.send_line(event);
            }
        }
    }

    pub fn output(&mut self, stream: Stream, data: &[u8]) {
        for client in self.clients.iter_mut().filter(|client| client.role == Role::Attached && !client.closing) {
            if client.output.is_empty() {
                client.progress = Instant::now();
            }
            client.output.push_back(stream as u8);
            client.output.extend((data.len() as u32).to_be_bytes());
            client.output.extend(data);
            client.flush();
            if client.output.len() > MAX_LAST_BYTES {
                client.drop_now(); // the log has it all
            }
        }
    }

    /// True while an attached client has enough to take: then the payload waits, as its output must reach everyone.
    pub fn full(&self) -> bool {
        self.clients.iter().any(|client| client.role == Role::Attached && client.output.len() > MAX_WAITING_BYTES)
    }

    /// Attached clients end when what they wait for has been sent.
    pub fn end_attached(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.role == Role::Attached) {
            client.closing = true;
            client.flush();
        }
    }

    /// Who ordered the end need not wait for attached clients that are slow to take the last output.
    pub fn end_listeners(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.role == Role::Control) {
            client.closing = true;
        }
    }

    pub fn flushed(&self) -> bool {
        self.clients.iter().all(|client| client.output.is_empty())
    }

    /// Whether something waits for a client to take what it has: then it must be looked at again in time.
    pub fn waits(&self) -> bool {
        self.full() || self.clients.iter().any(|client| client.closing)
    }

    /// Forgets clients that left, and those that hold the payload or its monitor's end up.
    pub fn sweep(&mut self) {
        self.clients.retain(|client| {
            let full = client.role == Role::Attached && client.output.len() > MAX_WAITING_BYTES;
            let waited_for = full || client.closing;
            let stalled = waited_for && client.progress.elapsed() > STALLED_CLIENT;
            !(client.gone || stalled || (client.closing && client.output.is_empty()))
        });
    }
}

impl Client {
    pub fn poll_entry(&self, read_input: bool) -> libc::pollfd {
        let mut events = 0;
        if read_input || self.role != Role::Attached {
            events |= libc::POLLIN;
        }
        if !self.output.is_empty() {
            events |= libc::POLLOUT;
        }
        libc::pollfd { fd: self.socket.as_raw_fd(), events, revents: 0 }
    }

    fn send_line(&mut self, message: &Value) {
        if self.output.is_empty() {
            self.progress = Instant::now();
        }
        if self.output.len() > 2 * MAX_WAITING_BYTES {
            self.gone = true; // it does not read its events; it may come back and hear the story anew
            return;
        }
        self.output.extend(message.to_string().as_bytes());
        self.output.push_back(b'\n');
        self.flush();
    }

    pub fn flush(&mut self) {
        while !self.output.is_empty() {
            let (head, _) = self.output.as_slices();
            match self.socket.write(head) {
                Ok(0) => break,
                Ok(count) => {
                    self.output.drain(..count);
                    self.progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.drop_now(),
            }
        }
    }

    fn drop_now(&mut self) {
        self.gone = true;
        self.output.clear();
    }

    /// Reads what has come and returns what is whole in it.
    pub fn receive(&mut self) -> Vec<Request> {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
        let mut found = Vec::new();
        loop {
            let next = if self.role == Role::Attached { self.take_frame() } else { self.take_line() };
            match next {
                Some(Request::Order(id, order)) => {
                    let last = order.op == "attach"; // what follows in the input are frames
                    found.push(Request::Order(id, order));
                    if last {
                        self.role = Role::Attached;
                    }
                }
                Some(request) => found.push(request),
                None => return found,
            }
        }
    }

    fn take_line(&mut self) -> Option<Request> {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            self.gone |= self.input.len() > MAX_LINE_BYTES;
            return None;
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        match serde_json::from_slice::<Order>(&line) {
            Ok(order) => Some(Request::Order(self.id, order)),
            Err(error) => {
                self.send_line(&json!({"n": 0, "ok": false, "error": format!("not an order: {error}")}));
                self.closing = true;
                None
            }
        }
    }

    fn take_frame(&mut self) -> Option<Request> {
        let header: [u8; 4] = self.input.get(1..5)?.try_into().ok()?;
        let length = u32::from_be_bytes(header) as usize;
        if length > MAX_FRAME_BYTES {
            self.gone = true;
            return None;
        }
        if self.input.len() < 5 + length {
            return None;
        }
        let data: Vec<u8> = self.input.drain(..5 + length).skip(5).collect();
        Some(if data.is_empty() { Request::EndOfInput } else { Request::Input(data) })
    }
}
