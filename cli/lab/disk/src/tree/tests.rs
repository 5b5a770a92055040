use super::*;

const FILE: Meta = Meta {
    directory: false,
    mode: 0o600,
    uid: 7,
    gid: 8,
};

struct Disk {
    tree: Tree,
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        Self { tree, directory }
    }

    /// A synced directory in the root.
    fn folder(&mut self, name: &str) -> u64 {
        let made = self.tree.create(ROOT, name.as_ref(), ROOT_META).unwrap();
        self.tree.sync(ROOT).unwrap();
        made.inode
    }

    /// A file with these bytes, not synced.
    fn file(&mut self, parent: u64, name: &str, bytes: &[u8]) -> u64 {
        let made = self.tree.create(parent, name.as_ref(), FILE).unwrap();
        self.tree.write(made.inode, 0, bytes).unwrap();
        made.inode
    }

    fn lose(&mut self) {
        self.tree.lose(Loss::All, &mut Random::new(1)).unwrap();
    }

    /// What a name has, now and after a new start.
    fn has(&mut self, parent: u64, name: &str) -> Option<Vec<u8>> {
        let read = |tree: &mut Tree| {
            let found = tree.lookup(parent, name.as_ref()).ok()?;
            assert_eq!(found.meta, FILE);
            tree.read(found.inode, 0, 100).ok()
        };
        let now = read(&mut self.tree);
        assert_eq!(read(&mut Tree::open(self.directory.path()).unwrap()), now);
        now
    }
}

#[test]
fn only_what_was_synced_is_there_after_a_loss() {
    let mut disk = Disk::new();
    let file = disk.file(ROOT, "f", b"first");
    disk.tree.sync(file).unwrap();
    disk.tree.sync(ROOT).unwrap();
    disk.tree.write(file, 2, b"XXXXXX").unwrap();
    assert_eq!(disk.tree.read(file, 0, 100).unwrap(), b"fiXXXXXX");
    assert_eq!(disk.tree.waiting(), 6);
    disk.lose();
    assert_eq!(disk.tree.waiting(), 0);
    assert_eq!(disk.has(ROOT, "f").unwrap(), b"first");
}

#[test]
fn a_name_needs_a_sync_of_its_directory_and_bytes_one_of_the_file() {
    let mut disk = Disk::new();
    let nameless = disk.file(ROOT, "nameless", b"bytes");
    disk.tree.sync(nameless).unwrap();
    disk.lose();
    assert_eq!(disk.has(ROOT, "nameless"), None);
    assert!(!disk
        .directory
        .path()
        .join(format!("objects/{nameless}"))
        .exists());
    disk.file(ROOT, "empty", b"bytes");
    disk.tree.sync(ROOT).unwrap();
    disk.lose();
    assert_eq!(disk.has(ROOT, "empty").unwrap(), b"");
}

#[test]
fn a_removal_and_a_rename_need_a_sync_too() {
    let mut disk = Disk::new();
    for name in ["a", "b"] {
        let file = disk.file(ROOT, name, name.as_bytes());
        disk.tree.sync(file).unwrap();
    }
    disk.tree.sync(ROOT).unwrap();
    let over = |tree: &mut Tree| tree.rename((ROOT, "a".as_ref()), (ROOT, "b".as_ref()), true);
    over(&mut disk.tree).unwrap();
    disk.lose();
    assert_eq!(disk.has(ROOT, "b").unwrap(), b"b");
    over(&mut disk.tree).unwrap();
    disk.tree.sync(ROOT).unwrap();
    disk.lose();
    assert_eq!(disk.has(ROOT, "a"), None);
    assert_eq!(disk.has(ROOT, "b").unwrap(), b"a");
    disk.tree.remove(ROOT, "b".as_ref(), false).unwrap();
    disk.lose();
    assert_eq!(disk.has(ROOT, "b").unwrap(), b"a");
}

#[test]
fn a_rename_between_directories_lasts_in_both_or_none() {
    let mut disk = Disk::new();
    let (one, other) = (disk.folder("one"), disk.folder("other"));
    let file = disk.file(one, "f", b"f");
    disk.tree.sync(file).unwrap();
    disk.tree.sync(one).unwrap();
    let there = |tree: &mut Tree| tree.rename((one, "f".as_ref()), (other, "f".as_ref()), false);
    there(&mut disk.tree).unwrap();
    disk.lose();
    assert_eq!(disk.has(one, "f").unwrap(), b"f");
    there(&mut disk.tree).unwrap();
    disk.tree.sync(one).unwrap();
    disk.lose();
    assert_eq!(disk.has(one, "f"), None);
    assert_eq!(disk.has(other, "f").unwrap(), b"f");
}

#[test]
fn a_removed_file_is_there_while_it_is_open() {
    let mut disk = Disk::new();
    let file = disk.file(ROOT, "f", b"f");
    disk.tree.opened(file).unwrap();
    disk.tree.remove(ROOT, "f".as_ref(), false).unwrap();
    assert_eq!(disk.tree.read(file, 0, 9).unwrap(), b"f");
    disk.tree.closed(file);
    assert_eq!(disk.tree.read(file, 0, 9), Err(libc::ENOENT));
}

#[test]
fn entries_of_the_wrong_kind_or_with_something_in_them_stay() {
    let mut disk = Disk::new();
    let folder = disk.folder("folder");
    disk.file(folder, "f", b"");
    let remove = |tree: &mut Tree, directory| tree.remove(ROOT, "folder".as_ref(), directory);
    assert_eq!(remove(&mut disk.tree, false), Err(libc::EISDIR));
    assert_eq!(remove(&mut disk.tree, true), Err(libc::ENOTEMPTY));
    disk.tree.remove(folder, "f".as_ref(), false).unwrap();
    assert_eq!(remove(&mut disk.tree, true), Ok(()));
}

#[test]
fn bytes_without_a_name_are_gone_when_it_is_opened_again() {
    let mut disk = Disk::new();
    let nameless = disk.file(ROOT, "nameless", b"long bytes");
    disk.tree.sync(nameless).unwrap();
    disk.tree = Tree::open(disk.directory.path()).unwrap();
    let next = disk.file(ROOT, "f", b"f");
    assert_eq!(next, nameless);
    disk.tree.sync(next).unwrap();
    disk.tree.sync(ROOT).unwrap();
    assert_eq!(disk.has(ROOT, "f").unwrap(), b"f");
}

#[test]
fn much_is_written_without_a_sync() {
    let mut disk = Disk::new();
    let file = disk.file(ROOT, "log", b"");
    disk.tree.sync(ROOT).unwrap();
    for _ in 0..5000 {
        disk.tree.write(file, 0, b"line").unwrap();
    }
    assert!(disk.tree.waiting() < 4 * 4097);
    disk.lose();
    assert_eq!(disk.has(ROOT, "log").unwrap(), b"line");
}
