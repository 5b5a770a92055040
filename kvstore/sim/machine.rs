//! The replicated state of the simulation: a few registers, and the configuration.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use kvstore::log::ConfState;

/// What a client asks of a register; 0 is a register never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Get,
    Put(u64),
    Cas { expected: u64, new: u64 },
}

#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub request: u64,
    pub key: u64,
    pub op: Op,
}

impl Command {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, expected, new) = match self.op {
            Op::Get => (0, 0, 0),
            Op::Put(new) => (1, 0, new),
            Op::Cas { expected, new } => (2, expected, new),
        };
        [self.request, self.key, kind, expected, new]
            .iter()
            .for_each(|&n| out.put_u64(n));
    }

    pub fn decode_all(mut bytes: Bytes) -> Vec<Self> {
        let mut out = Vec::new();
        while bytes.remaining() >= 40 {
            let (request, key) = (bytes.get_u64(), bytes.get_u64());
            let (kind, expected, new) = (bytes.get_u64(), bytes.get_u64(), bytes.get_u64());
            let op = match kind {
                1 => Op::Put(new),
                2 => Op::Cas { expected, new },
                _ => Op::Get,
            };
            out.push(Self { request, key, op });
        }
        out
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub applied: (u64, u64),
    pub conf: ConfState,
    pub registers: BTreeMap<u64, u64>,
}

impl Machine {
    /// Applies a command; gives the value that the register had before.
    pub fn apply(&mut self, command: &Command) -> u64 {
        let before = self.get(command.key);
        match command.op {
            Op::Put(new) => {
                self.registers.insert(command.key, new);
            }
            Op::Cas { expected, new } if before == expected => {
                self.registers.insert(command.key, new);
            }
            Op::Get | Op::Cas { .. } => {}
        }
        before
    }

    pub fn get(&self, key: u64) -> u64 {
        self.registers.get(&key).copied().unwrap_or(0)
    }
}
