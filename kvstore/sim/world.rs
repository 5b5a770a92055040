//! Time, and what happens in it: members, what is between them, and those who use them, all from one seed.
//!
//! Its parts: `network` between the members, `faults`, `clients` of keys, `admin` who changes users and members, `tenants`
//! who hold leases, `watching`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use kvstore::backend::write_by_hand;
use kvstore::consensus::Role;
use tempfile::TempDir;

use super::admin::Admin;
use super::checker::{check, Call};
use super::clients::Asked;
use super::member::Member;
use super::rng::Rng;
use super::running::Answer;
use super::session::Told;
use super::state::found;
use super::tenants::Tenants;
use super::truth::Truth;
use super::watching::Watch;

const TICK_MS: u64 = 10;
/// Faults go on until so much was done and so many happened.
pub const LEAST_OPERATIONS: u64 = 5_000;
pub const LEAST_FAULTS: u64 = 20;
/// They would have been after this time at the latest.
const MOST_MS: u64 = 120_000;
/// Then it is calm for a while, and all must come to rest.
const CALM_MS: u64 = 7_000;
/// At the end of it nobody does anything any more.
const REST_MS: u64 = 2_500;
pub const CLIENTS: usize = 24;
/// How often members come and go as the membership says.
const RUMOUR_MS: u64 = 300;
/// How long a removed member still sends.
const FAREWELL_MS: u64 = 500;
/// Where the members' files are, if it is there: a disk in memory.
const MEMORY_DISK: &str = "/dev/shm";

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    pub operations: u64,
    pub faults: u64,
    pub acknowledged: u64,
    pub crashes: u64,
    pub elections: u64,
    pub conf_changes: u64,
    pub snapshots: u64,
    pub defragmentations: u64,
    pub compactions: u64,
    pub leases_expired: u64,
    pub renewals: u64,
    pub events_seen: u64,
    pub reconnects: u64,
    pub watches_denied: u64,
    pub entries: u64,
    pub simulated_ms: u64,
}

impl Summary {
    pub fn add(&mut self, o: &Self) {
        self.operations += o.operations;
        self.faults += o.faults;
        self.acknowledged += o.acknowledged;
        self.crashes += o.crashes;
        self.elections += o.elections;
        self.conf_changes += o.conf_changes;
        self.snapshots += o.snapshots;
        self.defragmentations += o.defragmentations;
        self.compactions += o.compactions;
        self.leases_expired += o.leases_expired;
        self.renewals += o.renewals;
        self.events_seen += o.events_seen;
        self.reconnects += o.reconnects;
        self.watches_denied += o.watches_denied;
        self.entries += o.entries;
        self.simulated_ms += o.simulated_ms;
    }
}

pub enum Event {
    Deliver {
        from: u64,
        to: u64,
        bytes: Bytes,
        chunks: Option<Rc<Vec<Bytes>>>,
    },
    Disk {
        member: u64,
        boot: u64,
    },
    Restart(u64),
    Crash(u64),
    Turn(u64),
    /// The next step of a defragmentation.
    Defragment {
        member: u64,
        boot: u64,
    },
    /// A removed member has said its last.
    Gone(u64),
    /// A renewal comes to who its client thinks leads.
    Renew {
        to: u64,
        lease: i64,
        sent: u64,
    },
    Renewed {
        lease: i64,
        sent: u64,
    },
    /// A tenant's next step.
    Tenant(usize),
    /// A watch stream's words come to its client.
    Told {
        client: usize,
        serial: u64,
        told: Told,
    },
    /// A watcher without a stream tries to get one.
    Connect(usize),
}

pub struct World {
    pub seed: u64,
    root: TempDir,
    /// Until then no learner is promoted.
    pub alone_until: u64,
    pub rng: Rng,
    pub now: u64,
    /// Since when there are no faults any more.
    pub calm_since: Option<u64>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub members: BTreeMap<u64, Member>,
    pub cut: BTreeSet<(u64, u64)>,
    pub loss: u64,
    pub history: Vec<Call>,
    /// Request under way and when its client gives up, for each client.
    pub clients: Vec<Option<(u64, u64)>>,
    pub waiting: HashMap<u64, Asked>,
    pub last_seen: Vec<u64>,
    pub values: u64,
    pub admin: Admin,
    pub tenants: Tenants,
    pub watches: Vec<Watch>,
    leaders: BTreeMap<u64, u64>,
    pub truth: Truth,
    pub summary: Summary,
}

impl World {
    pub fn new(seed: u64) -> Self {
        write_by_hand();
        let root = TempDir::new_in(MEMORY_DISK).or_else(|_| TempDir::new());
        let root = root.expect("no place for the members' files");
        let mut rng = Rng::new(seed);
        let founders = match rng.below(10) {
            // Alone at first, with a learner: a leader by its own vote.
            0 | 1 => 1,
            2..=7 => 3,
            _ => 5,
        };
        let alone_until = if founders == 1 { 6_000 } else { 0 };
        let founders: Vec<u64> = (1..=founders).collect();
        let membership = found(&founders);
        let mut members: BTreeMap<u64, Member> = founders
            .iter()
            .map(|&id| (id, Member::founder(id, root.path(), &membership)))
            .collect();
        members.values_mut().for_each(|m| m.start(seed));
        let mut this = Self {
            seed,
            root,
            alone_until,
            loss: rng.below(10),
            rng,
            now: 0,
            calm_since: None,
            events: BTreeMap::new(),
            sequence: 0,
            members,
            cut: BTreeSet::new(),
            history: Vec::new(),
            clients: vec![None; CLIENTS],
            waiting: HashMap::new(),
            last_seen: Vec::new(),
            values: 0,
            admin: Admin::default(),
            tenants: Tenants::default(),
            watches: Vec::new(),
            leaders: BTreeMap::new(),
            truth: Truth::default(),
            summary: Summary::default(),
        };
        this.begin_clients();
        this.begin_tenants();
        this.begin_watches();
        this
    }

    pub fn run(mut self) -> Summary {
        while self
            .calm_since
            .is_none_or(|since| self.now < since + CALM_MS)
        {
            self.now += 1;
            while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
                let event = entry.remove();
                self.take(event);
            }
            if self.calm_since.is_none() {
                assert!(
                    self.now < MOST_MS,
                    "little came to pass: {:?}",
                    self.summary
                );
                self.faults();
                let enough = self.summary.operations >= LEAST_OPERATIONS;
                if enough && self.summary.faults >= LEAST_FAULTS {
                    self.calm();
                }
            }
            let rests = self
                .calm_since
                .is_some_and(|since| self.now > since + CALM_MS - REST_MS);
            if !rests {
                self.drive_clients();
            }
            self.administer();
            if self.now.is_multiple_of(RUMOUR_MS) {
                self.follow_membership();
            }
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
                self.write_state(id);
                self.turn(id);
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Summary {
        let answered = self.history.iter().filter(|c| c.returned.is_some());
        let since = self.calm_since.unwrap_or(0) + CALM_MS / 2;
        let after = answered.clone().filter(|c| c.invoked > since).count();
        assert!(
            after > 0,
            "the cluster did not recover after the faults ended"
        );
        self.summary.acknowledged += answered.count() as u64;
        self.summary.elections = self.leaders.len() as u64;
        self.summary.entries = self.truth.entries() as u64;
        self.summary.simulated_ms = self.now;
        self.check_watches_at_rest();
        self.check_leases_at_rest();
        check(&self.history);
        self.summary
    }

    pub fn root(&self) -> &std::path::Path {
        self.root.path()
    }

    pub fn later(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// A member that runs, if any does.
    pub fn anyone(&mut self) -> Option<u64> {
        let up = self.members.values().filter(|m| m.running.is_some());
        let up: Vec<u64> = up.map(|m| m.id).collect();
        self.rng.pick(&up)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Deliver {
                from,
                to,
                bytes,
                chunks,
            } => self.deliver(from, to, &bytes, chunks),
            Event::Disk { member, boot } => {
                if self.members.get(&member).is_some_and(|m| m.boot == boot) {
                    self.disk_done(member);
                }
            }
            Event::Restart(id) => {
                let down = self
                    .members
                    .get(&id)
                    .is_some_and(|m| m.running.is_none() && !m.removed);
                if down {
                    self.start(id);
                }
            }
            Event::Crash(id) => self.crash(id),
            Event::Turn(id) => self.turn(id),
            Event::Defragment { member, boot } => self.defragment(member, boot),
            Event::Gone(id) => {
                if let Some(m) = self.members.get_mut(&id) {
                    m.running = None;
                }
            }
            Event::Renew { to, lease, sent } => self.renew_at(to, lease, sent),
            Event::Renewed { lease, sent } => self.renewed(lease, sent),
            Event::Tenant(tenant) => self.step_tenant(tenant),
            Event::Told {
                client,
                serial,
                told,
            } => self.hear(client, serial, told),
            Event::Connect(client) => self.connect(client),
        }
    }

    /// What is due at a member now, or a little later together with what else comes.
    pub fn turn_soon(&mut self, id: u64) {
        if self.rng.percent(15) {
            let delay = 1 + self.rng.below(3);
            self.later(delay, Event::Turn(id));
        } else {
            self.turn(id);
        }
    }

    pub fn turn(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let was_removed = member.removed;
        let turn = member.turn(self.now);
        let boot = member.boot;
        if member.removed && !was_removed {
            self.later(FAREWELL_MS, Event::Gone(id));
        }
        if turn.disk_work {
            let delay = self.rng.delay(4, 5, 150);
            self.later(delay, Event::Disk { member: id, boot });
        }
        if let Some(term) = turn.leads {
            let other = self.leaders.insert(term, id).filter(|other| *other != id);
            assert_eq!(other, None, "term {term} has two leaders, {id} too");
            if self.calm_since.is_none() && self.rng.percent(10) {
                let delay = 1 + self.rng.below(60);
                self.later(delay, Event::Crash(id));
            }
        }
        for applied in turn.applied {
            let known = self.truth.leases.len();
            self.truth.check(id, applied);
            self.note_leases(known);
        }
        if turn.installed {
            self.check_opened(id);
        }
        for answer in turn.answers {
            match answer {
                Answer::Done { request, result } => self.done(request, result),
                Answer::Got { request, value } => self.got(request, &value),
                Answer::Renewed { lease, sent } => {
                    let delay = 1 + self.rng.below(6);
                    self.later(delay, Event::Renewed { lease, sent });
                }
            }
        }
        for sent in turn.sent {
            self.send(id, sent);
        }
        self.tell_watchers(id);
    }

    pub fn check_opened(&self, id: u64) {
        if let Some(running) = self.members.get(&id).and_then(|m| m.running.as_ref()) {
            self.truth.check_opened(id, &running.state.store);
        }
    }

    /// Who leads as far as it knows, if anyone does.
    pub fn leader(&self) -> Option<u64> {
        let leads = |m: &&Member| {
            let running = m.running.as_ref();
            running.is_some_and(|r| r.consensus.status().role == Role::Leader)
        };
        self.members.values().find(leads).map(|m| m.id)
    }
}
