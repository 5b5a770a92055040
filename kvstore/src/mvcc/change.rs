//! One change of one key, and the event that watchers get of it.

use std::sync::OnceLock;

use super::Kv;
use crate::pb::etcd::event::EventType;
use crate::pb::etcd::{Event, KeyValue};

/// What a change takes beside its keys and values, about; as an event that waits for a watcher, too.
const OVERHEAD_BYTES: usize = std::mem::size_of::<Event>();

/// One change of one key, with what was there before.
#[derive(Debug, Clone)]
pub struct Change {
    /// For a deletion only key and `mod_revision` are set.
    pub kv: Kv,
    pub deleted: bool,
    pub prev: Option<Kv>,
    /// Made for the first watcher, shared by the others.
    message: OnceLock<KeyValue>,
}

impl Change {
    #[must_use]
    pub fn new(kv: Kv, deleted: bool, prev: Option<Kv>) -> Self {
        Self {
            kv,
            deleted,
            prev,
            message: OnceLock::new(),
        }
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        OVERHEAD_BYTES
            + self.kv.encoded().len()
            + self.prev.as_ref().map_or(0, |kv| kv.encoded().len())
    }

    /// What watchers are told, with what was there before if they want it.
    #[must_use]
    pub fn event(&self, prev: bool) -> Event {
        let kind = if self.deleted {
            EventType::Delete
        } else {
            EventType::Put
        };
        Event {
            r#type: kind.into(),
            kv: Some(self.message.get_or_init(|| self.kv.message()).clone()),
            prev_kv: self.prev.as_ref().filter(|_| prev).map(Kv::message),
        }
    }
}
