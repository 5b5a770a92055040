//! What a user may do, merged from its roles when they change, so that a request is judged by two binary searches.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ROOT;
use crate::pb::authpb::{permission, Permission, Role, User};

/// What a request does with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Half-open intervals of keys, in order, apart from each other. An end of None is open.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Intervals(Vec<(Bytes, Option<Bytes>)>);

/// The end of a range of etcd's: none means the key alone, a zero byte all from the key on.
fn end_of(key: &[u8], range_end: &[u8]) -> Option<Bytes> {
    match range_end {
        [] => Some([key, &[0]].concat().into()),
        [0] => None,
        end => Some(Bytes::copy_from_slice(end)),
    }
}

fn is_past(end: &Option<Bytes>, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| end.as_ref() > key)
}

impl Intervals {
    /// Merges ranges of any order that overlap or touch.
    pub fn new<'a>(ranges: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let intervals = ranges.map(|(key, end)| (Bytes::copy_from_slice(key), end_of(key, end)));
        let mut all: Vec<_> = intervals.filter(|(key, end)| is_past(end, key)).collect();
        all.sort();
        let mut merged: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        for (key, end) in all {
            match merged.last_mut() {
                // None is past every end, though it sorts before them.
                Some((_, last)) if last.as_ref().is_none_or(|last| *last >= key) => {
                    if last.is_some() && (end.is_none() || end > *last) {
                        *last = end;
                    }
                }
                _ => merged.push((key, end)),
            }
        }
        Self(merged)
    }

    /// Whether one of them holds the whole range.
    #[must_use]
    pub fn contain(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(start, _)| start.as_ref() <= key);
        let Some((_, end)) = after.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return false;
        };
        if !is_past(end, key) {
            return false;
        }
        match (end, range_end) {
            (None, _) | (_, []) => true,
            (_, [0]) => false,
            (Some(end), wanted) => end.as_ref() >= wanted,
        }
    }
}

/// What one user may do.
#[derive(Debug, Default)]
pub struct Rights {
    pub is_root: bool,
    read: Intervals,
    write: Intervals,
}

impl Rights {
    pub fn of(user: &User, roles: &BTreeMap<String, Role>) -> Self {
        let held = user.roles.iter().filter_map(|name| roles.get(name));
        let permissions: Vec<&Permission> = held.flat_map(|role| &role.key_permission).collect();
        let with = |other: permission::Type| {
            let wanted = permissions.iter().filter(move |p| {
                let kind = p.perm_type();
                // No key is no key of etcd's.
                !p.key.is_empty() && (kind == other || kind == permission::Type::Readwrite)
            });
            Intervals::new(wanted.map(|p| (p.key.as_ref(), p.range_end.as_ref())))
        };
        Self {
            is_root: user.roles.iter().any(|role| role == ROOT),
            read: with(permission::Type::Read),
            write: with(permission::Type::Write),
        }
    }

    pub fn allow(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let intervals = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        self.is_root || intervals.contain(key, range_end)
    }
}

/// What the root role is shown to have.
pub fn everything() -> Permission {
    Permission {
        perm_type: permission::Type::Readwrite.into(),
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    }
}

/// Whether a permission may be granted on this range (etcd's `isValidPermissionRange`).
pub fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    type Range = (&'static str, &'static str);

    fn intervals(ranges: &[Range]) -> Intervals {
        Intervals::new(ranges.iter().map(|(k, e)| (k.as_bytes(), e.as_bytes())))
    }

    fn allows(ranges: &[Range], (key, end): Range) -> bool {
        intervals(ranges).contain(key.as_bytes(), end.as_bytes())
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let open = |key: &'static str| (Bytes::from(key), None);
        let half = |key: &'static str, end: &'static str| (Bytes::from(key), Some(end.into()));
        for (ranges, merged) in [
            (vec![("a", "c"), ("b", "d")], vec![half("a", "d")]),
            (vec![("c", "d"), ("a", "c")], vec![half("a", "d")]),
            (
                vec![("a", "b"), ("c", "d")],
                vec![half("a", "b"), half("c", "d")],
            ),
            (vec![("a", "d"), ("b", "c")], vec![half("a", "d")]),
            (vec![("a", "\0"), ("b", "c")], vec![open("a")]),
            (vec![("b", "c"), ("a", "\0")], vec![open("a")]),
            (vec![("a", "c"), ("b", "\0")], vec![open("a")]),
            (vec![("a", "z"), ("a", "\0"), ("a", "b")], vec![open("a")]),
            (
                vec![("a", ""), ("a\0", ""), ("b", "")],
                vec![half("a", "a\0\0"), half("b", "b\0")],
            ),
            (vec![("b", "a")], vec![]),
        ] {
            assert_eq!(intervals(&ranges).0, merged, "{ranges:?}");
        }
    }

    #[test]
    fn a_range_is_allowed_where_no_key_of_it_is_forbidden() {
        for (ranges, asked, expected) in [
            (vec![("a", "")], ("a", ""), true),
            (vec![("a", "")], ("a\0", ""), false),
            (vec![("a", "")], ("a", "a\0"), true),
            (vec![("a", "")], ("a", "b"), false),
            (vec![("a", "c")], ("b", ""), true),
            (vec![("a", "c")], ("c", ""), false),
            (vec![("a", "c")], ("a", "c"), true),
            (vec![("a", "c")], ("a", "d"), false),
            (vec![("a", "b"), ("b", "d")], ("a", "d"), true),
            (vec![("a", "b"), ("c", "d")], ("a", "d"), false),
            (vec![("a", "\0")], ("b", "\0"), true),
            (vec![("b", "\0")], ("a", "\0"), false),
            (vec![("a", "z")], ("a", "\0"), false),
            (vec![("\0", "\0")], ("\0", "\0"), true),
            // Nothing lies in such a range, and etcd looks at its key alone.
            (vec![("b", "c")], ("b", "a"), true),
            (vec![("a", "aa")], ("b", "a"), false),
            (vec![], ("a", ""), false),
        ] {
            assert_eq!(allows(&ranges, asked), expected, "{ranges:?} {asked:?}");
        }
    }

    #[test]
    fn the_index_agrees_with_looking_at_each_key() {
        let mut random = Random(9);
        for _ in 0..2_000 {
            let ranges: Vec<_> = (0..random.below(5)).map(|_| random.range()).collect();
            let index = Intervals::new(ranges.iter().map(|(k, e)| (k.as_ref(), e.as_ref())));
            for number in 0..20 {
                let key = Bytes::from(format!("k{number:02}"));
                let allowed = ranges
                    .iter()
                    .any(|(start, end)| crate::mvcc::KeyRange::new(start, end).contains(&key));
                assert_eq!(index.contain(&key, &[]), allowed, "{ranges:?} {key:?}");
            }
        }
    }
}
