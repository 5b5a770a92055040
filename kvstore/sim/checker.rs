//! Is there an order of the operations on one register that explains all that clients saw? (Wing and Gong's search,
//! with Lowe's memory of the situations already tried.)

use std::collections::{BTreeMap, HashSet};

/// What a client asks of a register; 0 is a register never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Get,
    Put(u64),
    Cas { expected: u64, new: u64 },
}

/// One operation; without a return it may have happened at any time since, or never.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub key: u64,
    pub op: Op,
    pub invoked: u64,
    /// When it returned, and the value that the register had before it.
    pub returned: Option<(u64, u64)>,
}

/// Panics with the history of the first register that can't be explained.
pub fn check(history: &[Call]) {
    let mut registers: BTreeMap<u64, Vec<Call>> = BTreeMap::new();
    for call in history {
        registers.entry(call.key).or_default().push(*call);
    }
    for (key, calls) in registers {
        let seen: HashSet<u64> = calls.iter().filter_map(|c| Some(c.returned?.1)).collect();
        let written = |c: &Call| match c.op {
            Op::Put(new) | Op::Cas { new, .. } => new,
            Op::Get => 0,
        };
        // An unanswered operation whose value nobody saw explains nothing.
        let mut calls: Vec<Call> = calls
            .into_iter()
            .filter(|c| c.returned.is_some() || (written(c) != 0 && seen.contains(&written(c))))
            .collect();
        calls.sort_by_key(|c| c.invoked);
        assert!(
            explained(&calls),
            "register {key} is not linearizable:\n{}",
            render(&calls)
        );
    }
}

fn render(calls: &[Call]) -> String {
    calls
        .iter()
        .map(|c| format!("  {:>8} {:?} -> {:?}\n", c.invoked, c.op, c.returned))
        .collect()
}

fn explained(calls: &[Call]) -> bool {
    let mut tried: HashSet<(Vec<u64>, u64)> = HashSet::new();
    let mut open = vec![(vec![0u64; calls.len().div_ceil(64)], 0u64)];
    while let Some((done, value)) = open.pop() {
        let is_done = |i: usize| done[i / 64] >> (i % 64) & 1 == 1;
        let horizon = (0..calls.len())
            .filter(|&i| !is_done(i))
            .filter_map(|i| calls[i].returned.map(|r| r.0))
            .min();
        let Some(horizon) = horizon else { return true };
        for (i, call) in calls.iter().enumerate() {
            if call.invoked > horizon {
                break;
            }
            if is_done(i) || call.returned.is_some_and(|(_, before)| before != value) {
                continue;
            }
            let after = match call.op {
                Op::Put(new) => new,
                Op::Cas { expected, new } if value == expected => new,
                Op::Get | Op::Cas { .. } => value,
            };
            let mut next = done.clone();
            next[i / 64] |= 1 << (i % 64);
            if tried.insert((next.clone(), after)) {
                open.push((next, after));
            }
        }
    }
    false
}

#[test]
fn a_stale_read_and_a_lost_write_are_found() {
    let call = |op, invoked, returned| Call {
        key: 1,
        op,
        invoked,
        returned: Some(returned),
    };
    let put = call(Op::Put(7), 1, (2, 0));
    assert!(explained(&[put, call(Op::Get, 3, (4, 7))]));
    assert!(!explained(&[put, call(Op::Get, 3, (4, 0))]));
    assert!(explained(&[
        put,
        call(Op::Get, 2, (4, 0)),
        call(Op::Get, 3, (5, 7))
    ]));
    let unknown = Call {
        returned: None,
        ..put
    };
    assert!(explained(&[
        unknown,
        call(Op::Get, 3, (4, 0)),
        call(Op::Get, 5, (6, 7))
    ]));
    assert!(!explained(&[
        unknown,
        call(Op::Get, 3, (4, 7)),
        call(Op::Get, 5, (6, 0))
    ]));
}
