//! Time, network, faults and clients around the members, and what must hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use kvstore::consensus::{Body, RaftChange, Role};

use crate::checker::{check, Call};
use crate::machine::{Command, Machine, Op};
use crate::member::{encode_change, Member};
use crate::rng::Rng;

const TICK_MS: u64 = 10;
const FAULTS_MS: u64 = 12_000;
const CALM_MS: u64 = 6_000;
const PATIENCE_MS: u64 = 600;
const KEYS: u64 = 3;
const CLIENTS: usize = 5;
/// How long a removed member still sends.
const FAREWELL_MS: u64 = 500;
const MOST_MEMBERS: u64 = 7;

#[derive(Debug, Default, Clone)]
pub struct Summary {
    pub acknowledged: u64,
    pub unknown: u64,
    pub crashes: u64,
    pub elections: u64,
    pub conf_changes: u64,
    pub snapshots: u64,
    pub entries: u64,
}

impl Summary {
    pub fn add(&mut self, o: &Self) {
        self.acknowledged += o.acknowledged;
        self.unknown += o.unknown;
        self.crashes += o.crashes;
        self.elections += o.elections;
        self.conf_changes += o.conf_changes;
        self.snapshots += o.snapshots;
        self.entries += o.entries;
    }
}

enum Event {
    Deliver {
        from: u64,
        to: u64,
        bytes: Bytes,
        state: Option<Machine>,
    },
    Disk {
        member: u64,
        boot: u64,
    },
    Restart(u64),
    Crash(u64),
    Turn(u64),
    /// A removed member has said its last.
    Gone(u64),
}

struct Waiting {
    client: usize,
    call: usize,
}

pub struct World {
    seed: u64,
    /// Until then no learner is promoted.
    alone_until: u64,
    rng: Rng,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    members: BTreeMap<u64, Member>,
    cut: BTreeSet<(u64, u64)>,
    loss: u64,
    history: Vec<Call>,
    /// Call under way and when its client gives up, for each client.
    clients: Vec<Option<(u64, u64)>>,
    waiting: HashMap<u64, Waiting>,
    last_seen: Vec<u64>,
    requests: u64,
    leaders: BTreeMap<u64, u64>,
    log: BTreeMap<u64, (u64, Body)>,
    summary: Summary,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let founders = match rng.below(10) {
            // Alone at first, with a learner: a leader by its own vote.
            0 | 1 => 1,
            2..=7 => 3,
            _ => 5,
        };
        let alone_until = if founders == 1 { FAULTS_MS / 2 } else { 0 };
        let founders: Vec<u64> = (1..=founders).collect();
        let mut members: BTreeMap<u64, Member> = founders
            .iter()
            .map(|&id| (id, Member::founder(id, &founders)))
            .collect();
        members.values_mut().for_each(|m| m.start(seed));
        Self {
            seed,
            alone_until,
            loss: rng.below(10),
            rng,
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            members,
            cut: BTreeSet::new(),
            history: Vec::new(),
            clients: vec![None; CLIENTS],
            waiting: HashMap::new(),
            last_seen: vec![0; KEYS as usize],
            requests: 0,
            leaders: BTreeMap::new(),
            log: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    pub fn run(mut self) -> Summary {
        while self.now < FAULTS_MS + CALM_MS {
            self.now += 1;
            while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
                let event = entry.remove();
                self.take(event);
            }
            if self.now < FAULTS_MS {
                self.faults();
            } else if self.now == FAULTS_MS {
                self.calm();
            }
            self.drive_clients();
            let due: Vec<u64> = self
                .members
                .keys()
                .copied()
                .filter(|id| (self.now + id).is_multiple_of(TICK_MS))
                .collect();
            for id in due {
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.consensus.tick();
                }
                self.turn(id);
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Summary {
        let unanswered = self.history.iter().filter(|c| c.returned.is_none()).count();
        self.summary.unknown = unanswered as u64;
        self.summary.acknowledged = self.history.len() as u64 - self.summary.unknown;
        let after = self
            .history
            .iter()
            .filter(|c| c.invoked > FAULTS_MS + CALM_MS / 2 && c.returned.is_some())
            .count();
        assert!(
            after > 0,
            "the cluster did not recover after the faults ended"
        );
        self.summary.elections = self.leaders.len() as u64;
        self.summary.entries = self.log.len() as u64;
        check(&self.history);
        self.summary
    }

    fn later(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Deliver {
                from,
                to,
                bytes,
                state,
            } => {
                let Some(member) = self.members.get_mut(&to) else {
                    return;
                };
                if self.cut.contains(&(from, to)) || member.running.is_none() {
                    if let Some(sender) =
                        self.members.get_mut(&from).and_then(|m| m.running.as_mut())
                    {
                        if state.is_some() {
                            sender.consensus.report_snapshot(to, false);
                        }
                    }
                    return;
                }
                let carried = state.is_some();
                if carried {
                    // A snapshot comes alone.
                    self.turn(to);
                }
                let Some(member) = self.members.get_mut(&to) else {
                    return;
                };
                member.receive(&bytes, state);
                if !carried {
                    self.turn_soon(to);
                } else {
                    self.turn(to);
                    self.summary.snapshots += 1;
                    if let Some(sender) =
                        self.members.get_mut(&from).and_then(|m| m.running.as_mut())
                    {
                        sender.consensus.report_snapshot(to, true);
                    }
                    self.turn(from);
                }
            }
            Event::Disk { member, boot } => {
                if self.members.get(&member).is_some_and(|m| m.boot == boot) {
                    self.disk_done(member);
                }
            }
            Event::Restart(id) => {
                if let Some(m) = self
                    .members
                    .get_mut(&id)
                    .filter(|m| m.running.is_none() && !m.removed)
                {
                    m.start(self.seed);
                }
            }
            Event::Crash(id) => self.crash(id),
            Event::Turn(id) => self.turn(id),
            Event::Gone(id) => {
                if let Some(m) = self.members.get_mut(&id) {
                    m.running = None;
                }
            }
        }
    }

    /// What is due at a member now, or a little later together with what else comes.
    fn turn_soon(&mut self, id: u64) {
        if self.rng.percent(15) {
            let delay = 1 + self.rng.below(3);
            self.later(delay, Event::Turn(id));
        } else {
            self.turn(id);
        }
    }

    fn turn(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let was_removed = member.removed;
        let turn = member.turn();
        let boot = member.boot;
        if member.removed && !was_removed {
            self.later(FAREWELL_MS, Event::Gone(id));
        }
        if turn.disk_work {
            let delay = if self.rng.percent(5) {
                1 + self.rng.below(150)
            } else {
                1 + self.rng.below(4)
            };
            self.later(delay, Event::Disk { member: id, boot });
        }
        if let Some(term) = turn.leads {
            let other = self.leaders.insert(term, id).filter(|other| *other != id);
            assert_eq!(other, None, "term {term} has two leaders, {id} too");
            if self.now < FAULTS_MS && self.rng.percent(10) {
                let delay = 1 + self.rng.below(60);
                self.later(delay, Event::Crash(id));
            }
        }
        for (index, term, body) in turn.applied {
            self.summary.conf_changes +=
                u64::from(matches!(body, Body::ConfChange(_)) && !self.log.contains_key(&index));
            let known = self
                .log
                .entry(index)
                .or_insert_with(|| (term, body.clone()));
            assert_eq!(
                known,
                &(term, body),
                "member {id} has another entry {index}"
            );
        }
        for (request, before) in turn.answers {
            self.answer(id, request, before);
        }
        for sent in turn.sent {
            if self
                .rng
                .percent(if self.now < FAULTS_MS { self.loss } else { 0 })
            {
                continue;
            }
            let copies = 1 + u64::from(!sent.once && sent.state.is_none() && self.rng.percent(4));
            for _ in 0..copies {
                let delay = if self.rng.percent(4) {
                    1 + self.rng.below(300)
                } else {
                    1 + self.rng.below(6)
                };
                let (bytes, state) = (sent.bytes.clone(), sent.state.clone());
                self.later(
                    delay,
                    Event::Deliver {
                        from: id,
                        to: sent.to,
                        bytes,
                        state,
                    },
                );
            }
        }
    }

    fn answer(&mut self, member: u64, request: u64, before: u64) {
        // Every member applies a request; the one that was asked answers it.
        if request >> 48 != member {
            return;
        }
        if let Some(Waiting { client, call }) = self.waiting.remove(&request) {
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

    fn drive_clients(&mut self) {
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

    fn ask(&mut self, client: usize) {
        let up: Vec<u64> = self
            .members
            .values()
            .filter(|m| m.running.is_some())
            .map(|m| m.id)
            .collect();
        let Some(id) = self.rng.pick(&up) else { return };
        self.requests += 1;
        let (request, key) = (id << 48 | self.requests, self.rng.below(KEYS));
        let op = match self.rng.below(10) {
            0..=4 => Op::Get,
            5..=7 => Op::Put(self.requests),
            _ => Op::Cas {
                expected: self.last_seen[key as usize],
                new: self.requests,
            },
        };
        self.clients[client] = Some((request, self.now + PATIENCE_MS));
        self.waiting.insert(
            request,
            Waiting {
                client,
                call: self.history.len(),
            },
        );
        self.history.push(Call {
            key,
            op,
            invoked: self.now,
            returned: None,
        });
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        match op {
            Op::Get => member.read(request, key),
            op => member.propose(Command { request, key, op }),
        }
        self.turn(id);
    }

    fn faults(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let Some(id) = self.rng.pick(&ids) else {
            return;
        };
        match self.rng.below(6000) {
            0..=11 => self.crash(id),
            12..=14 => ids.iter().for_each(|&id| self.crash(id)),
            15..=19 => ids.iter().filter(|&&o| o != id).for_each(|&other| {
                self.cut.insert((id, other));
                self.cut.insert((other, id));
            }),
            20..=24 => {
                if let Some(other) = self.rng.pick(&ids) {
                    self.cut.insert((id, other));
                }
            }
            25..=27 => {
                let side = self.rng.next();
                let apart = |a: u64, b: u64| (side >> a & 1) != (side >> b & 1);
                let pairs = ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b)));
                self.cut = pairs.filter(|&(a, b)| apart(a, b)).collect();
            }
            28..=49 => self.cut.clear(),
            50..=69 => self.change_membership(),
            70..=75 => {
                let other = self.rng.pick(&ids).unwrap_or(id);
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.consensus.transfer_leader(other);
                }
            }
            111..=130 => {
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.behind = !running.behind;
                }
            }
            131..=140 => {
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.hangs = !running.hangs;
                }
                self.disk_done(id);
            }
            76..=110 => self
                .members
                .values_mut()
                .filter(|m| m.id == id && m.running.is_some())
                .for_each(Member::flush),
            _ => {}
        }
    }

    fn disk_done(&mut self, id: u64) {
        self.members
            .get_mut(&id)
            .into_iter()
            .for_each(Member::disk_done);
        self.turn_soon(id);
    }

    fn crash(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id).filter(|m| m.running.is_some()) else {
            return;
        };
        member.crash(&mut self.rng);
        self.summary.crashes += 1;
        let delay = 1 + self.rng.below(1500);
        self.later(delay, Event::Restart(id));
    }

    fn calm(&mut self) {
        self.cut.clear();
        let running = self.members.values_mut().filter_map(|m| m.running.as_mut());
        running.for_each(|r| (r.behind, r.hangs) = (false, false));
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.disk_done(id);
        }
        for member in self
            .members
            .values_mut()
            .filter(|m| m.running.is_none() && !m.removed)
        {
            member.start(self.seed);
        }
    }

    fn change_membership(&mut self) {
        let next = self.members.keys().next_back().map_or(1, |id| id + 1);
        let leader = self.members.values_mut().find_map(|m| {
            let id = m.id;
            m.running
                .as_mut()
                .filter(|r| r.consensus.status().role == Role::Leader)
                .map(|r| (id, r))
        });
        let Some((leader, running)) = leader else {
            return;
        };
        let status = running.consensus.status();
        let conf = running.consensus.conf_state();
        let ready = |id: &u64| {
            status
                .progress
                .iter()
                .any(|p| p.id == *id && p.matched + 5 > status.commit)
        };
        let change = if let Some(&learner) = conf.learners.first() {
            if !ready(&learner) || self.now < self.alone_until {
                return;
            }
            RaftChange::AddVoter(learner)
        } else if conf.voters.len() > 3 && self.rng.percent(60) {
            match self.rng.pick(&conf.voters) {
                Some(id) if id != leader => RaftChange::Remove(id),
                _ => return,
            }
        } else {
            if next > MOST_MEMBERS {
                return;
            }
            RaftChange::AddLearner(next)
        };
        let accepted = running
            .consensus
            .propose_conf_change(change, encode_change(change))
            .is_ok();
        if let (true, RaftChange::AddLearner(id)) = (accepted, change) {
            let mut member = Member::joiner(id);
            member.start(self.seed);
            self.members.insert(id, member);
        }
        self.turn(leader);
    }
}
