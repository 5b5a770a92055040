//! One key-value in memory: a single piece, which is its protobuf message as the disk and the clients get it.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use prost::encoding::{
    decode_key, decode_varint, encode_key, encode_varint, skip_field, DecodeContext, WireType,
};
use prost::Message;

use crate::pb::etcd::KeyValue;

/// Fields of etcd's `mvccpb.KeyValue`.
const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

/// A key-value; cheap to clone. There is one for each key, so that each byte that it takes counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv(Arc<[u8]>);

/// What a key-value says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

impl Kv {
    #[must_use]
    pub fn new(fields: &Fields<'_>) -> Self {
        let mut out = Vec::with_capacity(64 + fields.key.len() + fields.value.len());
        let int = |out: &mut Vec<u8>, tag, number: i64| {
            if number != 0 {
                encode_key(tag, WireType::Varint, out);
                encode_varint(number as u64, out);
            }
        };
        let bytes = |out: &mut Vec<u8>, tag, bytes: &[u8]| {
            if !bytes.is_empty() {
                encode_key(tag, WireType::LengthDelimited, out);
                encode_varint(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
        };
        bytes(&mut out, KEY, fields.key);
        int(&mut out, CREATE_REVISION, fields.create_revision);
        int(&mut out, MOD_REVISION, fields.mod_revision);
        int(&mut out, VERSION, fields.version);
        bytes(&mut out, VALUE, fields.value);
        int(&mut out, LEASE, fields.lease);
        Self(out.into())
    }

    /// A key-value from its message; None when it is none.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        Fields::read(message)?;
        Some(Self(message.into()))
    }

    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        // It was made from fields, or read once.
        Fields::read(&self.0).unwrap_or_default()
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.fields().key
    }

    /// Its message.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// Its message in parts, which share its memory.
    #[must_use]
    pub fn message(&self) -> KeyValue {
        KeyValue::decode(Bytes::from_owner(Arc::clone(&self.0))).unwrap_or_default()
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let mut found = Self::default();
        while rest.has_remaining() {
            let (tag, kind) = decode_key(&mut rest).ok()?;
            match (tag, kind) {
                (KEY, WireType::LengthDelimited) => found.key = part(&mut rest)?,
                (VALUE, WireType::LengthDelimited) => found.value = part(&mut rest)?,
                (CREATE_REVISION, WireType::Varint) => found.create_revision = int(&mut rest)?,
                (MOD_REVISION, WireType::Varint) => found.mod_revision = int(&mut rest)?,
                (VERSION, WireType::Varint) => found.version = int(&mut rest)?,
                (LEASE, WireType::Varint) => found.lease = int(&mut rest)?,
                _ => skip_field(kind, tag, &mut rest, DecodeContext::default()).ok()?,
            }
        }
        Some(found)
    }
}

fn int(rest: &mut &[u8]) -> Option<i64> {
    Some(decode_varint(rest).ok()? as i64)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_its_message() {
        let large = vec![7; 300];
        for (value, numbers) in [
            (b"".as_slice(), [0, 1, 0, 0]),
            (b"v", [1, 200, 3, -1]),
            (&large, [i64::MAX, i64::MIN, 1 << 40, 5]),
        ] {
            let [create_revision, mod_revision, version, lease] = numbers;
            let fields = Fields {
                key: b"k",
                create_revision,
                mod_revision,
                version,
                value,
                lease,
            };
            let kv = Kv::new(&fields);
            let message = KeyValue {
                key: "k".into(),
                create_revision,
                mod_revision,
                version,
                value: value.to_vec().into(),
                lease,
            };
            assert_eq!(kv.encoded(), message.encode_to_vec());
            assert_eq!(kv.message(), message);
            assert_eq!(kv.fields(), fields);
            assert_eq!(Kv::read(kv.encoded()).unwrap(), kv);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let kv = Kv::new(&Fields {
            key: b"key",
            value: b"value",
            ..Default::default()
        });
        for end in [1, 3, kv.encoded().len() - 1] {
            assert!(Kv::read(&kv.encoded()[..end]).is_none(), "{end}");
        }
    }
}
