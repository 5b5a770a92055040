//! Messages between members: lost, late, twice, in any order.

use std::rc::Rc;

use bytes::Bytes;

use super::member::Member;
use super::running::Sent;
use super::world::{Event, World};

impl World {
    pub fn send(&mut self, from: u64, sent: Sent) {
        let loss = if self.calm_since.is_none() {
            self.loss
        } else {
            0
        };
        if self.rng.percent(loss) {
            if sent.chunks.is_some() {
                self.report_snapshot(from, sent.to, false);
            }
            return;
        }
        let again = !sent.once && sent.chunks.is_none() && self.rng.percent(4);
        for _ in 0..1 + u64::from(again) {
            let delay = self.rng.delay(6, 4, 300);
            let (bytes, chunks) = (sent.bytes.clone(), sent.chunks.clone());
            let to = sent.to;
            self.later(
                delay,
                Event::Deliver {
                    from,
                    to,
                    bytes,
                    chunks,
                },
            );
        }
    }

    pub fn deliver(&mut self, from: u64, to: u64, bytes: &Bytes, chunks: Option<Rc<Vec<Bytes>>>) {
        let member = self.members.get_mut(&to);
        let runs = |m: &mut Member| m.running.is_some() && !self.cut.contains(&(from, to));
        let reached = member.is_some_and(runs);
        let Some(chunks) = chunks else {
            if let Some(member) = self.members.get_mut(&to).filter(|_| reached) {
                member.receive(bytes, None);
                self.turn_soon(to);
            }
            return;
        };
        if reached {
            // A snapshot comes alone.
            self.turn(to);
        }
        let member = self.members.get_mut(&to).filter(|_| reached);
        let taken = member.is_some_and(|member| member.receive(bytes, Some(&chunks)));
        if taken {
            self.turn(to);
            self.summary.snapshots += 1;
        }
        self.report_snapshot(from, to, taken);
        self.turn(from);
    }

    /// A sender always learns what became of a snapshot.
    fn report_snapshot(&mut self, from: u64, to: u64, taken: bool) {
        if let Some(sender) = self.members.get_mut(&from).and_then(|m| m.running.as_mut()) {
            sender.consensus.report_snapshot(to, taken);
        }
    }
}
