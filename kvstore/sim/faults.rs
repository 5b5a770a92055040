//! What goes wrong, and what its owners do to members.

use super::member::Member;
use super::world::{Event, World};

/// Of so many milliseconds one has each of the cases below.
const ONE_IN: u64 = 14_000;

impl World {
    pub fn faults(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let Some(id) = self.rng.pick(&ids) else {
            return;
        };
        match self.rng.below(ONE_IN) {
            0..=11 => self.crash(id),
            12..=14 => ids.iter().for_each(|&id| self.crash(id)),
            15..=19 => {
                self.summary.faults += 1;
                ids.iter().filter(|&&o| o != id).for_each(|&other| {
                    self.cut.insert((id, other));
                    self.cut.insert((other, id));
                });
            }
            20..=24 => {
                if let Some(other) = self.rng.pick(&ids) {
                    self.summary.faults += 1;
                    self.cut.insert((id, other));
                }
            }
            25..=27 => {
                self.summary.faults += 1;
                let side = self.rng.next();
                let apart = |a: u64, b: u64| (side >> a & 1) != (side >> b & 1);
                let pairs = ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b)));
                self.cut = pairs.filter(|&(a, b)| apart(a, b)).collect();
            }
            28..=69 => self.cut.clear(),
            70..=109 => self.change_membership(),
            110..=116 => {
                let other = self.rng.pick(&ids).unwrap_or(id);
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.consensus.transfer_leader(other);
                }
            }
            120..=219 => {
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.cut_log();
                }
            }
            220..=239 => {
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.behind = !running.behind;
                    self.summary.faults += u64::from(running.behind);
                }
            }
            240..=249 => {
                if let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) {
                    running.hangs = !running.hangs;
                    self.summary.faults += u64::from(running.hangs);
                }
                self.disk_done(id);
            }
            250..=265 => {
                let boot = self.members.get(&id).map_or(0, |m| m.boot);
                self.defragment(id, boot);
            }
            _ => {}
        }
    }

    pub fn disk_done(&mut self, id: u64) {
        self.members
            .get_mut(&id)
            .into_iter()
            .for_each(Member::disk_done);
        self.turn_soon(id);
    }

    /// The tables take what was applied, or a first part of it, now and then.
    pub fn write_state(&mut self, id: u64) {
        if !self.rng.percent(8) {
            return;
        }
        let part = self.rng.percent(50);
        let most = if part {
            1 + self.rng.below(8) as usize
        } else {
            usize::MAX
        };
        let running = self.members.get(&id).and_then(|m| m.running.as_ref());
        if let Some(running) = running.filter(|r| !r.behind) {
            running.state.store.write_first(most).unwrap();
        }
    }

    /// A defragmentation's next step; it takes a while until the one after.
    pub fn defragment(&mut self, id: u64, boot: u64) {
        let member = self.members.get_mut(&id).filter(|m| m.boot == boot);
        let Some(running) = member.and_then(|m| m.running.as_mut()) else {
            return;
        };
        if running.state.defragment.is_none() && !running.may_defragment() {
            return;
        }
        if running.state.defragment() {
            self.summary.defragmentations += 1;
            self.turn(id);
        } else if running.state.defragment.is_some() {
            let delay = 1 + self.rng.below(400);
            self.later(delay, Event::Defragment { member: id, boot });
        }
    }

    pub fn start(&mut self, id: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.start(self.seed);
            self.check_opened(id);
        }
    }

    pub fn crash(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id).filter(|m| m.running.is_some()) else {
            return;
        };
        member.crash(&mut self.rng);
        self.summary.crashes += 1;
        self.summary.faults += 1;
        let delay = 1 + self.rng.below(1500);
        self.later(delay, Event::Restart(id));
    }

    pub fn calm(&mut self) {
        self.calm_since = Some(self.now);
        self.cut.clear();
        let running = self.members.values_mut().filter_map(|m| m.running.as_mut());
        running.for_each(|r| (r.behind, r.hangs) = (false, false));
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.disk_done(id);
        }
        let down = self
            .members
            .values()
            .filter(|m| m.running.is_none() && !m.removed);
        for id in down.map(|m| m.id).collect::<Vec<_>>() {
            self.start(id);
        }
    }
}
