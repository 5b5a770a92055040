//! One change of one key, and the event that watchers get of it: encoded once, and shared by all of them.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_key, encode_varint, WireType};

use super::Kv;
use crate::pb::etcd::event::EventType;

/// Fields of etcd's `mvccpb.Event`.
const TYPE: u32 = 1;
const KV: u32 = 2;
const PREV_KV: u32 = 3;
/// Tags and lengths of the fields, at most.
const MOST_FRAME_BYTES: usize = 16;

/// What a change takes beside its keys and values, about; as an event that waits for a watcher, too.
const OVERHEAD_BYTES: usize = std::mem::size_of::<Change>();

/// One change of one key, with what was there before.
#[derive(Debug, Clone)]
pub struct Change {
    /// For a deletion only key and `mod_revision` are set.
    pub kv: Kv,
    pub deleted: bool,
    pub prev: Option<Kv>,
    /// As watchers get it: without what was there before, and with it.
    events: [OnceLock<Bytes>; 2],
}

impl Change {
    #[must_use]
    pub fn new(kv: Kv, deleted: bool, prev: Option<Kv>) -> Self {
        Self {
            kv,
            deleted,
            prev,
            events: Default::default(),
        }
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        OVERHEAD_BYTES
            + self.kv.encoded().len()
            + self.prev.as_ref().map_or(0, |kv| kv.encoded().len())
    }

    /// The encoded `mvccpb.Event` that watchers are told, with what was there before if they want it.
    #[must_use]
    pub fn event(&self, prev: bool) -> Bytes {
        let prev = self.prev.as_ref().filter(|_| prev);
        let event = &self.events[usize::from(prev.is_some())];
        event.get_or_init(|| self.encode(prev)).clone()
    }

    fn encode(&self, prev: Option<&Kv>) -> Bytes {
        let kvs = [(KV, Some(&self.kv)), (PREV_KV, prev)];
        let kvs = kvs.map(|(tag, kv)| (tag, kv.map_or(&[][..], Kv::encoded)));
        let bytes: usize = kvs.iter().map(|(_, kv)| kv.len()).sum();
        let mut out = BytesMut::with_capacity(MOST_FRAME_BYTES + bytes);
        // A put is the type that protobuf leaves out.
        if self.deleted {
            encode_key(TYPE, WireType::Varint, &mut out);
            encode_varint(EventType::Delete as u64, &mut out);
        }
        for (tag, kv) in kvs.into_iter().filter(|(_, kv)| !kv.is_empty()) {
            encode_key(tag, WireType::LengthDelimited, &mut out);
            encode_varint(kv.len() as u64, &mut out);
            out.put_slice(kv);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::Fields;
    use super::*;
    use crate::pb::etcd::Event;

    #[test]
    fn an_event_is_what_prost_makes_of_it() {
        let kv = |value| {
            Kv::new(&Fields {
                key: b"k",
                value,
                mod_revision: 300,
                ..Default::default()
            })
        };
        let large = vec![7; 70_000];
        for deleted in [false, true] {
            for prev in [None, Some(kv(b"was")), Some(kv(&large))] {
                let change = Change::new(kv(if deleted { b"" } else { &large }), deleted, prev);
                for wanted in [false, true] {
                    let event = Event {
                        r#type: i32::from(deleted),
                        kv: Some(change.kv.message()),
                        prev_kv: change.prev.as_ref().filter(|_| wanted).map(Kv::message),
                    };
                    assert_eq!(change.event(wanted), event.encode_to_vec());
                }
            }
        }
    }
}
