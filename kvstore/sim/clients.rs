//! Clients of keys: registers, of which all that they see must be linearizable, and keys that are changed for those who
//! watch.

use bytes::Bytes;
use kvstore::apply::Response;
use kvstore::auth::Caller;
use kvstore::command::Command;
use kvstore::errors::StoreError;
use kvstore::pb::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use kvstore::pb::etcd::request_op::Request;
use kvstore::pb::etcd::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::checker::{Call, Op};
use super::running::Wanted;
use super::users::{ANN, ROOT};
use super::world::{World, CLIENTS};

const REGISTERS: u64 = 8;
const KEYS: u64 = 16;
const PATIENCE_MS: u64 = 600;

/// Who waits for a request.
pub enum Asked {
    Register {
        client: usize,
        call: usize,
    },
    Plain {
        client: usize,
    },
    Grant {
        tenant: usize,
        lease: i64,
        sent: u64,
    },
    /// Whose outcome interests nobody but the model.
    Aside,
}

fn register(number: u64) -> Bytes {
    format!("r{number}").into()
}

fn key(number: u64) -> Bytes {
    format!("w{number:02}").into()
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

fn before(prev: Option<&KeyValue>) -> u64 {
    prev.map_or(0, |kv| number(&kv.value))
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn put(key: Bytes, value: u64) -> PutRequest {
    PutRequest {
        key,
        value: value.to_string().into(),
        prev_kv: true,
        ..PutRequest::default()
    }
}

fn delete(key: Bytes, range_end: Bytes) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    }
}

fn cas(key: Bytes, expected: u64, new: u64) -> TxnRequest {
    let (target, union) = if expected == 0 {
        (CompareTarget::Version, TargetUnion::Version(0))
    } else {
        (
            CompareTarget::Value,
            TargetUnion::Value(expected.to_string().into()),
        )
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
        ..Compare::default()
    };
    let read = RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put(key, new)))],
        failure: vec![op(Request::RequestRange(read))],
    }
}

impl World {
    pub fn begin_clients(&mut self) {
        self.last_seen = vec![0; REGISTERS as usize];
    }

    pub fn drive_clients(&mut self) {
        for client in 0..CLIENTS {
            match self.clients[client] {
                Some((request, until)) if until <= self.now => {
                    self.waiting.remove(&request);
                    self.clients[client] = None;
                }
                None if self.rng.percent(6) => self.ask(client),
                _ => {}
            }
        }
    }

    /// Who a user is to a member, as its tokens say.
    pub fn caller(&self, member: u64, user: &str) -> Option<Caller> {
        let auth = self
            .members
            .get(&member)?
            .running
            .as_ref()?
            .state
            .store
            .auth();
        auth.is_enabled().then(|| Caller {
            user: user.to_owned(),
            revision: auth.revision(),
        })
    }

    /// Hands a command to a member; the request's number.
    pub fn propose(&mut self, id: u64, user: &str, command: Command, asked: Asked) -> u64 {
        self.summary.operations += 1;
        let caller = self.caller(id, user);
        let request = self
            .members
            .get_mut(&id)
            .map(|m| m.propose(command, caller));
        let request = request.unwrap_or(0);
        self.waiting.insert(request, asked);
        request
    }

    fn ask(&mut self, client: usize) {
        let Some(id) = self.anyone() else { return };
        let request = match self.rng.below(100) {
            0..=54 => self.ask_register(client, id),
            55..=59 => return self.look(id),
            _ => {
                let user = if self.rng.percent(30) { ANN } else { ROOT };
                let command = self.change();
                self.propose(id, user, command, Asked::Plain { client })
            }
        };
        self.clients[client] = Some((request, self.now + PATIENCE_MS));
        self.turn(id);
    }

    fn ask_register(&mut self, client: usize, id: u64) -> u64 {
        self.values += 1;
        let (number, new) = (self.rng.below(REGISTERS), self.values);
        let key = register(number);
        let op = match self.rng.below(10) {
            0..=4 => Op::Get,
            5..=7 => Op::Put(new),
            _ => Op::Cas {
                expected: self.last_seen[number as usize],
                new,
            },
        };
        let call = self.history.len();
        self.history.push(Call {
            key: number,
            op,
            invoked: self.now,
            returned: None,
        });
        let asked = Asked::Register { client, call };
        match op {
            Op::Get => {
                self.summary.operations += 1;
                let member = self.members.get_mut(&id);
                let request = member.map_or(0, |m| m.read(Wanted::Get(key)));
                self.waiting.insert(request, asked);
                request
            }
            Op::Put(new) => self.propose(id, ROOT, Command::Put(put(key, new)), asked),
            Op::Cas { expected, new } => {
                self.propose(id, ROOT, Command::Txn(cas(key, expected, new)), asked)
            }
        }
    }

    fn change(&mut self) -> Command {
        self.values += 1;
        let (one, value) = (self.rng.below(KEYS), self.values);
        match self.rng.below(40) {
            0..=25 => Command::Put(put(key(one), value)),
            26..=31 => Command::DeleteRange(delete(key(one), Bytes::new())),
            32 => Command::DeleteRange(delete(key(one), key(one + 4))),
            33 | 34 => {
                let newest = self.truth.model.revision;
                Command::Compact(newest - self.rng.below(80) as i64)
            }
            _ => {
                let puts = (0..1 + self.rng.below(3)).map(|more| put(key(one + more), value));
                let mut success: Vec<_> = puts.map(|put| op(Request::RequestPut(put))).collect();
                if self.rng.percent(50) {
                    let gone = delete(key(one + 5), key(one + 7));
                    success.push(op(Request::RequestDeleteRange(gone)));
                }
                Command::Txn(TxnRequest {
                    success,
                    ..TxnRequest::default()
                })
            }
        }
    }

    /// A look at all keys of some revision that a member has.
    fn look(&mut self, id: u64) {
        self.summary.operations += 1;
        let running = self.members.get(&id).and_then(|m| m.running.as_ref());
        let Some(store) = running.map(|r| &r.state.store) else {
            return;
        };
        let oldest = store.compacted_revision().max(1);
        let revision = oldest + self.rng.below((store.revision() - oldest + 1) as u64) as i64;
        self.truth
            .check_keys(&format!("member {id}"), store, revision);
    }

    pub fn got(&mut self, request: u64, value: &[u8]) {
        if let Some(Asked::Register { client, call }) = self.waiting.remove(&request) {
            self.answer_register(client, call, number(value));
        }
    }

    /// A member says what became of a request.
    pub fn done(&mut self, request: u64, result: Result<Response, StoreError>) {
        match (self.waiting.remove(&request), result) {
            (Some(Asked::Register { client, call }), Ok(response)) => {
                let seen = match (&response, self.history[call].op) {
                    (Response::Put(put), _) => before(put.prev_kv.as_ref()),
                    (Response::Txn(txn), Op::Cas { expected, .. }) if txn.succeeded => expected,
                    (Response::Txn(txn), _) => match txn.responses[0].response.as_ref() {
                        Some(kvstore::pb::etcd::response_op::Response::ResponseRange(range)) => {
                            before(range.kvs.first())
                        }
                        other => unreachable!("a range answers {other:?}"),
                    },
                    (other, op) => unreachable!("{op:?} answers {other:?}"),
                };
                self.answer_register(client, call, seen);
            }
            (Some(Asked::Register { client, .. }), Err(_)) => self.clients[client] = None,
            (Some(Asked::Plain { client }), result) => {
                self.clients[client] = None;
                self.summary.acknowledged += u64::from(result.is_ok());
                let compacted = matches!(result, Ok(Response::Compact(_)));
                self.summary.compactions += u64::from(compacted);
            }
            (
                Some(Asked::Grant {
                    tenant,
                    lease,
                    sent,
                }),
                result,
            ) => {
                self.granted(tenant, lease, sent, result.is_ok());
            }
            (Some(Asked::Aside) | None, _) => {}
        }
    }

    fn answer_register(&mut self, client: usize, call: usize, before: u64) {
        let call = &mut self.history[call];
        call.returned = Some((self.now, before));
        self.last_seen[call.key as usize] = match call.op {
            Op::Put(new) => new,
            Op::Cas { expected, new } if expected == before => new,
            Op::Get | Op::Cas { .. } => before,
        };
        self.clients[client] = None;
    }
}
