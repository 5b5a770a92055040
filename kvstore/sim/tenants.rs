//! Who holds leases: granted, renewed for a while at the leader, then revoked or left to end. None may end by itself
//! before its TTL is over since the last renewal that was acknowledged.

use std::collections::BTreeMap;

use kvstore::command::Command;
use kvstore::pb::etcd::{LeaseGrantRequest, PutRequest};

use super::clients::Asked;
use super::running::{Wanted, BY_LEADER};
use super::users::ROOT;
use super::world::{Event, World};

const TENANTS: usize = 5;
/// How long a tenant waits for its grant.
const PATIENCE_MS: u64 = 800;

#[derive(Debug)]
struct Lease {
    ttl_ms: u64,
    /// It can't end by itself before.
    assured: u64,
    /// When it ended by itself.
    ended: Option<u64>,
    gone: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tenant {
    lease: Option<i64>,
    /// Renewals that it will still ask for.
    renewals: u64,
    /// Since when it waits for a grant.
    asked: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Tenants {
    all: Vec<Tenant>,
    leases: BTreeMap<i64, Lease>,
    last: i64,
}

impl Lease {
    /// Somebody holds an acknowledgement of what was sent then.
    fn acknowledged(&mut self, id: i64, sent: u64) {
        let assured = sent + self.ttl_ms;
        if let Some(ended) = self.ended {
            assert!(
                assured <= ended,
                "lease {id} ended at {ended}, and was renewed by what was sent at {sent}"
            );
        }
        self.assured = self.assured.max(assured);
    }
}

impl World {
    pub fn begin_tenants(&mut self) {
        self.tenants.all = vec![Tenant::default(); TENANTS];
        for tenant in 0..TENANTS {
            let delay = 200 + self.rng.below(1_000);
            self.later(delay, Event::Tenant(tenant));
        }
    }

    pub fn step_tenant(&mut self, number: usize) {
        let mut tenant = self.tenants.all[number];
        let mut pause = 50 + self.rng.below(300);
        match (tenant.lease, tenant.asked) {
            (None, Some(asked)) if self.now < asked + PATIENCE_MS => {}
            (None, _) if self.calm_since.is_some() => return,
            (None, _) => {
                tenant.asked = Some(self.now);
                self.grant(number);
            }
            (Some(lease), _) if tenant.renewals > 0 && self.calm_since.is_none() => {
                tenant.renewals -= 1;
                let ttl_ms = self.tenants.leases.get(&lease).map_or(1_000, |l| l.ttl_ms);
                pause = ttl_ms / 4 + self.rng.below(ttl_ms / 2);
                self.renew(lease);
            }
            (Some(lease), _) => {
                if self.rng.percent(30) {
                    if let Some(id) = self.anyone() {
                        self.propose(id, ROOT, Command::LeaseRevoke(lease), Asked::Aside);
                    }
                }
                tenant = Tenant::default();
            }
        }
        self.tenants.all[number] = tenant;
        self.later(pause, Event::Tenant(number));
    }

    fn grant(&mut self, tenant: usize) {
        let Some(id) = self.anyone() else { return };
        self.tenants.last += 1;
        let (lease, sent) = (self.tenants.last, self.now);
        let request = LeaseGrantRequest {
            id: lease,
            ttl: 1 + self.rng.below(3) as i64,
        };
        let asked = Asked::Grant {
            tenant,
            lease,
            sent,
        };
        self.propose(id, ROOT, Command::LeaseGrant(request), asked);
        self.turn(id);
    }

    pub fn granted(&mut self, tenant: usize, lease: i64, sent: u64, granted: bool) {
        if !granted {
            return;
        }
        if let Some(held) = self.tenants.leases.get_mut(&lease) {
            held.acknowledged(lease, sent);
        }
        self.tenants.all[tenant] = Tenant {
            lease: Some(lease),
            renewals: self.rng.below(8),
            asked: None,
        };
        for key in 0..1 + self.rng.below(3) {
            let Some(id) = self.anyone() else { return };
            // Keys of its own, and some that others put without a lease, or with theirs.
            let name = if key == 0 {
                format!("l{lease}")
            } else {
                format!("w{:02}", 13 + key)
            };
            let put = PutRequest {
                key: name.into(),
                value: lease.to_string().into(),
                lease,
                ..PutRequest::default()
            };
            self.propose(id, ROOT, Command::Put(put), Asked::Aside);
        }
    }

    /// As `Handle::renew`: any member passes it on to who it thinks leads.
    fn renew(&mut self, lease: i64) {
        self.summary.operations += 1;
        let Some(id) = self.anyone() else { return };
        let running = self.members.get(&id).and_then(|m| m.running.as_ref());
        let to = running.map_or(0, |r| r.consensus.status().leader);
        if to == 0 || self.cut.contains(&(id, to)) {
            return;
        }
        let delay = self.rng.delay(6, 10, 300);
        let sent = self.now;
        self.later(delay, Event::Renew { to, lease, sent });
    }

    /// It comes there, and first asks whether that one still leads.
    pub fn renew_at(&mut self, to: u64, lease: i64, sent: u64) {
        let Some(member) = self.members.get_mut(&to) else {
            return;
        };
        if member.running.as_ref().is_some_and(|r| r.consensus.leads()) {
            member.read(Wanted::Renew { lease, sent });
            self.turn(to);
        }
    }

    pub fn renewed(&mut self, lease: i64, sent: u64) {
        self.summary.renewals += 1;
        if let Some(held) = self.tenants.leases.get_mut(&lease) {
            held.acknowledged(lease, sent);
        }
    }

    /// Leases that came or went with an entry that was applied for the first time.
    pub fn note_leases(&mut self, known: usize) {
        for news in &self.truth.leases[known..] {
            let Some(ttl) = news.ttl else {
                let Some(lease) = self.tenants.leases.get_mut(&news.id) else {
                    continue;
                };
                lease.gone = true;
                if news.request & BY_LEADER != 0 {
                    self.summary.leases_expired += 1;
                    lease.ended = Some(self.now);
                    let (now, id, assured) = (self.now, news.id, lease.assured);
                    assert!(
                        assured <= now,
                        "lease {id} ended at {now}, not past {assured}"
                    );
                }
                continue;
            };
            let lease = Lease {
                ttl_ms: ttl as u64 * 1000,
                assured: 0,
                ended: None,
                gone: false,
            };
            self.tenants.leases.insert(news.id, lease);
        }
    }

    /// What nobody renews has ended by now.
    pub fn check_leases_at_rest(&self) {
        let left = self.tenants.leases.iter().filter(|(_, lease)| !lease.gone);
        let left: Vec<_> = left.collect();
        assert!(
            left.is_empty(),
            "leases that nobody renews are still there: {left:?}"
        );
    }
}
