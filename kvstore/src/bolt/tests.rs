//! What is written is read back, and no damaged byte does more than an error.

use std::io::Write;

use super::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn fill<W: Write>(writer: &mut Writer<W>, buckets: &[(&str, Pairs)]) -> Result<(), BoltError> {
    for (name, pairs) in buckets {
        writer.bucket(name.as_bytes())?;
        for (key, value) in pairs {
            writer.put(key, value)?;
        }
    }
    Ok(())
}

fn file(buckets: &[(&str, Pairs)]) -> Vec<u8> {
    let mut measuring = Writer::measuring();
    fill(&mut measuring, buckets).unwrap();
    let (plan, _) = measuring.finish().unwrap();
    let mut writer = Writer::new(Sealed::new(Vec::new()), plan).unwrap();
    fill(&mut writer, buckets).unwrap();
    let (_, sealed) = writer.finish().unwrap();
    let data = sealed.seal().unwrap();
    assert_eq!(data.len() as u64, plan.bytes() + TRAILER_BYTES);
    data
}

/// Everything in a file, or the first error; how much was read is bounded by the file.
fn read(data: &Vec<u8>) -> Result<Vec<(String, Pairs)>, BoltError> {
    let bytes = Checked::look(data)?.bytes;
    let reader = Reader::open(data.clone(), bytes)?;
    let mut found = Vec::new();
    for bucket in reader.buckets()? {
        let (mut cursor, mut pairs) = (reader.cursor(&bucket)?, Vec::new());
        while let Some((key, value)) = cursor.next()? {
            pairs.push((key.to_vec(), value.to_vec()));
        }
        found.push((String::from_utf8_lossy(&bucket.name).into_owned(), pairs));
    }
    Ok(found)
}

fn numbered(count: u64, value_bytes: impl Fn(u64) -> usize) -> Pairs {
    let pair = |i: u64| (i.to_be_bytes().to_vec(), vec![i as u8; value_bytes(i)]);
    (1..=count).map(pair).collect()
}

fn three_levels() -> Vec<(&'static str, Pairs)> {
    vec![
        ("key", numbered(30_000, |i| (i % 90) as usize)),
        ("empty", Vec::new()),
        ("large", numbered(9, |i| 1 << (2 * i))),
        ("meta", vec![(b"term".to_vec(), vec![0; 8])]),
    ]
}

#[test]
fn buckets_of_every_shape_come_back() {
    let one_of_two_pages = numbered(2, |_| 3_000);
    let long_keys = (0..40_u8).map(|i| (vec![i; 3_000], vec![])).collect();
    for mut buckets in [
        vec![],
        three_levels(),
        vec![("a", one_of_two_pages), ("b", long_keys)],
    ] {
        let data = file(&buckets);
        Checked::verify(&data).unwrap();
        buckets.sort();
        let expected: Vec<_> = buckets
            .iter()
            .map(|(name, pairs)| ((*name).to_owned(), pairs.clone()))
            .collect();
        assert!(read(&data).unwrap() == expected);
    }
}

#[test]
fn no_branch_has_a_single_child() {
    // bbolt panics when the only child of a branch becomes smaller. Around a boundary the last page is short.
    for count in 1..600 {
        let data = file(&[("key", numbered(count, |_| 1_000))]);
        let branches = data
            .chunks(4096)
            .filter(|page| page.len() == 4096 && page[8..10] == [1, 0]);
        for page in branches {
            assert!(page[10..12] != [1, 0], "{count} keys");
        }
    }
}

#[test]
fn keys_out_of_order_and_another_content_than_measured_are_refused() {
    let mut writer = Writer::measuring();
    assert!(writer.put(b"a", b"").is_err());
    writer.bucket(b"key").unwrap();
    writer.put(b"b", b"").unwrap();
    for key in ["b", "a", ""] {
        let text = writer.put(key.as_bytes(), b"").unwrap_err().to_string();
        assert_eq!(text, "bucket key: its keys are not in order");
    }
    assert!(writer.bucket(b"key").is_err());
    let (plan, _) = writer.finish().unwrap();
    let mut other = Writer::new(Vec::new(), plan).unwrap();
    other.bucket(b"key").unwrap();
    other.put(b"b", &[0; 5_000]).unwrap();
    assert!(other.finish().is_err());
}

#[test]
fn a_flipped_byte_is_seen_by_the_checksum_and_is_never_more_than_an_error() {
    let whole = file(&[
        ("key", numbered(200, |i| (i % 40) as usize)),
        ("lease", numbered(3, |_| 6)),
        ("large", numbered(2, |_| 9_000)),
    ]);
    let expected = read(&whole).unwrap();
    let mut differing = 0;
    let mut step = 0;
    let mut at = 0;
    while at < whole.len() {
        for bit in [0x01, 0x80, 0xff] {
            let mut data = whole.clone();
            data[at] ^= bit;
            if at % 61 == 0 {
                assert!(Checked::verify(&data).is_err(), "byte {at}");
            }
            match read(&data) {
                Ok(found) => differing += usize::from(found != expected),
                Err(error) => assert!(error.to_string().len() > 20, "{error}"),
            }
        }
        // All of what pages begin with, and samples of the rest.
        step += 1;
        at += if at % 4096 < 80 { 1 } else { 1 + step % 13 };
    }
    assert!(differing > 0, "values have no checksum of their own");
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let whole = file(&three_levels());
    let mut cut = whole.clone();
    for length in [
        0,
        1,
        31,
        32,
        4_095,
        8_192,
        whole.len() / 2,
        whole.len() - 33,
    ] {
        cut.truncate(whole.len());
        let data = whole[..length].to_vec();
        assert!(Checked::verify(&data).is_err(), "{length}");
        assert!(read(&data).is_err(), "{length}");
    }
}

/// Where the first page of a kind begins, and where its n-th element does.
fn page_of(data: &[u8], kind: u8) -> usize {
    let found = data
        .chunks(4096)
        .position(|page| page[8] == kind && page[10] > 4);
    found.unwrap() * 4096
}

fn set(data: &mut [u8], at: usize, bytes: &[u8]) {
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn hostile_numbers_are_refused_with_the_place() {
    let whole = file(&three_levels());
    let (leaf, branch) = (page_of(&whole, 2), page_of(&whole, 1));
    let root = whole.len() - 32 - 2 * 4096;
    let u32s = |n: u32| n.to_le_bytes().to_vec();
    let id = |at: usize| (at as u64 / 4096).to_le_bytes().to_vec();
    let second = |data: &mut Vec<u8>| data[4096 + 16] ^= 1;
    let cases: Vec<(&str, usize, Vec<u8>, &str)> = vec![
        (
            "a branch that leads to itself",
            branch + 24,
            id(branch),
            "two places lead to it",
        ),
        (
            "two ways to a page",
            branch + 40,
            id(leaf),
            "two places lead to it",
        ),
        (
            "a child behind the end",
            branch + 24,
            u32s(1 << 30),
            "leads to page 1073741824",
        ),
        (
            "a meta page as a child",
            branch + 24,
            vec![0; 8],
            "leads to page 0",
        ),
        (
            "a bucket in a meta page",
            root + 16 + 4 * 16 + "empty".len(),
            id(4096),
            "leads to page 1",
        ),
        (
            "a page of another id",
            leaf,
            id(branch),
            "it calls itself page",
        ),
        (
            "a page of no kind",
            leaf + 8,
            vec![0x20],
            "its kind is 0x20",
        ),
        ("a page of two kinds", leaf + 8, vec![3], "its kind is 0x3"),
        (
            "a count past the end",
            leaf + 10,
            vec![0xff; 2],
            "65535 elements do not fit",
        ),
        (
            "a branch without children",
            branch + 10,
            vec![0; 2],
            "a branch without children",
        ),
        (
            "an overflow past the end",
            leaf + 12,
            vec![0xff; 4],
            "4294967295 more pages",
        ),
        (
            "a key past the end",
            leaf + 20,
            u32s(5_000),
            "not within the page",
        ),
        (
            "a key within the elements",
            leaf + 20,
            u32s(0),
            "not within the page",
        ),
        (
            "a key of 4 GiB",
            leaf + 24,
            vec![0xff; 4],
            "not within the page",
        ),
        (
            "a value of 4 GiB",
            leaf + 28,
            vec![0xff; 4],
            "not within the page",
        ),
        ("an empty key", leaf + 24, vec![0; 4], "an empty key"),
        (
            "keys in another order",
            leaf + 16 + 20,
            u32s(4_096 - 48),
            "keys are not in order",
        ),
        (
            "a bucket within a bucket",
            leaf + 16,
            u32s(1),
            "a bucket within a bucket",
        ),
        (
            "a key among the buckets",
            root + 16,
            vec![0; 4],
            "a bucket is expected",
        ),
    ];
    for (what, at, bytes, expected) in cases {
        let mut data = whole.clone();
        set(&mut data, at, &bytes);
        match read(&data) {
            Ok(_) => panic!("{what} is read"),
            Err(error) => assert!(error.to_string().contains(expected), "{what}: {error}"),
        }
    }
    for damage in [|data: &mut Vec<u8>| data[16] ^= 1, second] {
        let mut data = whole.clone();
        damage(&mut data);
        assert_eq!(read(&data).unwrap().len(), 4, "one meta page is enough");
    }
    let mut data = whole.clone();
    data[16] ^= 1;
    data[4096 + 16] ^= 1;
    assert!(matches!(read(&data), Err(BoltError::NoMeta(_))));
}

#[test]
fn many_buckets_and_deep_trees_are_refused() {
    let names: Vec<String> = (0..65).map(|i| format!("bucket{i}")).collect();
    let buckets: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Vec::new()))
        .collect();
    let text = read(&file(&buckets)).unwrap_err().to_string();
    assert!(text.contains("more than 64 buckets"), "{text}");
    // A chain of branches with one child each, as no writer makes it.
    let mut data = file(&[("key", numbered(20_000, |_| 100))]);
    let pages = data.len() / 4096;
    for page in 2..pages - 2 {
        let at = page * 4096;
        let mut chain = vec![0; 4096];
        set(&mut chain, 0, &(page as u64).to_le_bytes());
        set(&mut chain, 8, &[1, 0, 1, 0]);
        set(&mut chain, 24, &(page as u64 - 1).to_le_bytes());
        set(&mut data, at, &chain);
    }
    let text = read(&data).unwrap_err().to_string();
    assert!(
        text.contains("more than 16 pages above each other"),
        "{text}"
    );
}

#[test]
fn an_inline_bucket_is_read_and_a_damaged_one_refused() {
    // As bbolt lays a small bucket into its parent's page: root 0, a sequence, then a leaf page without an id.
    let mut inline = vec![0; 16];
    inline.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0]);
    for part in [0_u32, 16, 4, 3] {
        inline.extend_from_slice(&part.to_le_bytes());
    }
    inline.extend_from_slice(b"termabc");
    let with = |inline: &[u8]| {
        let mut data = file(&[("meta", Vec::new())]);
        let root = data.len() - 32 - 2 * 4096;
        set(&mut data, root + 28, &(inline.len() as u32).to_le_bytes());
        set(&mut data, root + 36, inline);
        read(&data)
    };
    let found = with(&inline).unwrap();
    assert_eq!(found[0].1, [(b"term".to_vec(), b"abc".to_vec())]);
    for (at, byte) in [(24, 0), (26, 9), (36, 200), (40, 60)] {
        let mut damaged = inline.clone();
        damaged[at] = byte;
        assert!(with(&damaged).is_err(), "byte {at}");
    }
    assert!(with(&inline[..20]).is_err());
}
