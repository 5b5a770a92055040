//! Records inside a frame of the log, as bytes. A kind, then fields of fixed size; lists and data carry their length.

use bytes::{Buf, BufMut, Bytes};

use crate::log::{ConfState, Entry, EntryKind, HardState, SnapshotMeta};
use crate::wal::Identity;

const HEADER: u8 = 1;
const START: u8 = 2;
const HARD_STATE: u8 = 3;
const SNAPSHOT: u8 = 4;
const ENTRY: u8 = 5;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Header { version: u32, identity: Identity },
    Start((u64, u64)),
    HardState(HardState),
    Snapshot(SnapshotMeta),
    Entry(Entry),
}

pub(crate) fn put_header(out: &mut Vec<u8>, version: u32, identity: Identity) {
    out.put_u8(HEADER);
    out.put_u32_le(version);
    out.put_u64_le(identity.cluster);
    out.put_u64_le(identity.member);
}

pub(crate) fn put_start(out: &mut Vec<u8>, (index, term): (u64, u64)) {
    out.put_u8(START);
    out.put_u64_le(index);
    out.put_u64_le(term);
}

pub(crate) fn put_hard_state(out: &mut Vec<u8>, hard: &HardState) {
    out.put_u8(HARD_STATE);
    out.put_u64_le(hard.term);
    out.put_u64_le(hard.vote);
    out.put_u64_le(hard.commit);
}

pub(crate) fn put_snapshot(out: &mut Vec<u8>, meta: &SnapshotMeta) {
    out.put_u8(SNAPSHOT);
    out.put_u64_le(meta.index);
    out.put_u64_le(meta.term);
    for ids in [&meta.conf.voters, &meta.conf.learners] {
        out.put_u32_le(ids.len() as u32);
        ids.iter().for_each(|&id| out.put_u64_le(id));
    }
}

pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.put_u8(ENTRY);
    out.put_u64_le(entry.index);
    out.put_u64_le(entry.term);
    out.put_u8(u8::from(entry.kind == EntryKind::ConfChange));
    out.put_u32_le(entry.data.len() as u32);
    out.put_slice(&entry.data);
}

/// Reads all records of a frame's body, or says what is wrong with it.
pub(crate) fn records(mut body: Bytes) -> Result<Vec<Record>, String> {
    let mut out = Vec::new();
    while body.has_remaining() {
        let kind = body.get_u8();
        out.push(one(kind, &mut body).map_err(|e| format!("record of kind {kind}: {e}"))?);
    }
    Ok(out)
}

fn one(kind: u8, body: &mut Bytes) -> Result<Record, String> {
    let u64s = |body: &mut Bytes| body.try_get_u64_le().map_err(|e| e.to_string());
    let u32s = |body: &mut Bytes| body.try_get_u32_le().map_err(|e| e.to_string());
    match kind {
        HEADER => {
            let version = u32s(body)?;
            Ok(Record::Header {
                version,
                identity: Identity {
                    cluster: u64s(body)?,
                    member: u64s(body)?,
                },
            })
        }
        START => Ok(Record::Start((u64s(body)?, u64s(body)?))),
        HARD_STATE => Ok(Record::HardState(HardState {
            term: u64s(body)?,
            vote: u64s(body)?,
            commit: u64s(body)?,
        })),
        SNAPSHOT => {
            let (index, term) = (u64s(body)?, u64s(body)?);
            let ids = |body: &mut Bytes| {
                (0..u32s(body)?)
                    .map(|_| u64s(body))
                    .collect::<Result<Vec<u64>, String>>()
            };
            let conf = ConfState {
                voters: ids(body)?,
                learners: ids(body)?,
            };
            Ok(Record::Snapshot(SnapshotMeta { index, term, conf }))
        }
        ENTRY => {
            let (index, term) = (u64s(body)?, u64s(body)?);
            let kind = match body.try_get_u8().map_err(|e| e.to_string())? {
                0 => EntryKind::Normal,
                _ => EntryKind::ConfChange,
            };
            let length = u32s(body)? as usize;
            if body.remaining() < length {
                return Err(format!(
                    "{length} bytes of data are announced and {} follow",
                    body.remaining()
                ));
            }
            Ok(Record::Entry(Entry {
                index,
                term,
                kind,
                data: body.split_to(length),
            }))
        }
        _ => Err("not known to this program".to_owned()),
    }
}
