//! Which keys a request means.

use std::ops::Bound;

use bytes::Bytes;

pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A range of keys in etcd's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// From the first, up to and without the second.
    Span(Bytes, Bytes),
    From(Bytes),
}

impl KeyRange {
    /// `range_end` empty: the key alone; a single zero byte: all keys from `key` on; else the half-open interval.
    #[must_use]
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Span(key.clone(), range_end.clone()),
        }
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::Span(from, to) => from.as_ref() <= key && key < to.as_ref(),
            Self::From(from) => from.as_ref() <= key,
        }
    }

    /// What is left of it from `key` on, which is in it.
    #[must_use]
    pub fn from(&self, key: Bytes) -> Self {
        match self {
            Self::One(_) => Self::One(key),
            Self::Span(_, to) => Self::Span(key, to.clone()),
            Self::From(_) => Self::From(key),
        }
    }

    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(one) => Some((Bound::Included(one), Bound::Included(one))),
            Self::Span(from, to) if from < to => Some((Bound::Included(from), Bound::Excluded(to))),
            Self::Span(..) => None,
            Self::From(from) => Some((Bound::Included(from), Bound::Unbounded)),
        }
    }
}
