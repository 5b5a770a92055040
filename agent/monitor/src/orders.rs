//! What clients may order, and the answers.

use std::os::fd::AsRawFd;

use serde_json::{json, Value};

use crate::control::{Order, Request};
use crate::gate::Gate;
use crate::isolation;
use crate::payload::{Payload, Phase};
use crate::record;
use crate::spawn;
use crate::spec::PROTOCOL_VERSION;
use crate::sys;

impl Payload {
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
            "forget" if matches!(self.phase, Phase::Ended | Phase::Held) && self.ended.is_none() => {
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
        if self.isolated() {
            return Err(format!("{}: {}", self.spec.id, isolation::REASON));
        }
        if let (Phase::Created, Some(bundle)) = (self.phase, &self.spec.bundle) {
            self.gate = Gate::open(bundle);
        }
        match (self.phase, &self.spec.bundle) {
            (Phase::Held, None) => self.start_command(),
            (Phase::Created, Some(_)) if self.gate.is_some() => self.phase = Phase::Leaving,
            (Phase::Created, Some(bundle)) => match spawn::start(&self.spec, bundle, self.oom_score) {
                Ok(pid) => self.phase = Phase::Starting(pid),
                Err(error) => return Err(format!("{}: calling {}: {error}", self.spec.id, bundle.runtime)),
            },
            (Phase::Creating(_), _) => return Err(format!("{} is not created yet", self.spec.id)),
            _ => return Err(format!("{} was started before", self.spec.id)),
        }
        Ok(json!({}))
    }

    pub(crate) fn signal(&mut self, signal: i32, whom: &str) -> Result<Value, String> {
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
}
