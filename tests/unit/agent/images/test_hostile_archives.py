"""Archives that want out: nothing beside the image's own root is touched, the refusal says why, and nothing stays."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.images import archive, store
from agent.images.archive import ArchiveError
from agent.images.store import ImageError, Images

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: layers keep owners and devices")
VICTIM = "victim"


class Entry(tarfile.TarInfo):
    """An entry with its content."""

    data = b""


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **more: int) -> Entry:
    """One entry; `more` are a TarInfo's mode, uid, devmajor and so on."""
    item = Entry(name)
    item.type, item.linkname, item.size, item.data = kind, link, len(data), data
    for key, value in more.items():
        setattr(item, key, value)
    return item


def tar(items: Iterable[Entry]) -> io.BytesIO:
    """The entries as an archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as made:
        for item in items:
            made.addfile(item, io.BytesIO(item.data))
    return io.BytesIO(out.getvalue())


@pytest.fixture
def images(tmp_path: Path) -> Images:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / VICTIM).write_text("whole")
    os.utime(outside / VICTIM, (1, 1))
    os.utime(outside, (1, 1))
    return Images(tmp_path / "images")


def assert_outside_is_whole(images: Images) -> None:
    outside = images._root.parent / "outside"
    assert [path.name for path in outside.iterdir()] == [VICTIM]
    assert (outside / VICTIM).read_text() == "whole"
    assert (outside / VICTIM).stat().st_mtime == outside.stat().st_mtime == 1
    assert (outside / VICTIM).stat().st_nlink == 1
    assert sorted(path.name for path in images._root.parent.iterdir()) == ["images", "outside"]


def assert_nothing_stays(images: Images) -> None:
    assert images.all() == []
    for name in ("images", "layers", "tmp"):
        assert list((images._root / name).iterdir()) == []


DIRECTORY, SYMLINK, HARDLINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
REFUSED = {
    "the last part is ..": ([entry("a/..", data=b"x")], "points out of the archive"),
    "a hard link to what is not in it": ([entry("a", HARDLINK, "{outside}/victim")], "can't be made"),
    "a hard link by ..": ([entry("a", HARDLINK, "../../../../outside/victim")], "can't be made"),
    "a hard link through a link": (
        [entry("d", SYMLINK, "{outside}"), entry("a", HARDLINK, "d/victim")],
        "can't be made",
    ),
    "a hard link to a directory's parent": ([entry("a", HARDLINK, "x/..")], "points out of the archive"),
    "a whiteout of ..": ([entry("d", DIRECTORY), entry("d/.wh...")], "names nothing that is in its directory"),
    "a whiteout of . at the top": ([entry(".wh..")], "names nothing that is in its directory"),
    "a whiteout of nothing": ([entry(".wh.")], "names nothing that is in its directory"),
    "a link as the root": ([entry("./", SYMLINK, "{outside}"), entry("victim", data=b"x")], "replace the root"),
    "a file as a directory": ([entry("a", data=b"x"), entry("a/b", data=b"x")], "can't be made"),
    "links in a ring": (
        [entry("a", SYMLINK, "b"), entry("b", SYMLINK, "a"), entry("a/x", data=b"x")],
        "too many links",
    ),
    "a name of 300 letters": ([entry("n" * 300, data=b"x")], "can't be made"),
    "an unknown kind": ([entry("a", b"V")], "unknown kind"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_nothing(images: Images, case: str) -> None:
    items, reason = REFUSED[case]
    outside = str(images._root.parent / "outside")
    made = [copy.copy(item) for item in items]
    for item in made:
        item.linkname = item.linkname.replace("{outside}", outside)
    with pytest.raises(ArchiveError, match=reason):
        images.import_tar(tar(made), "bad")
    assert_outside_is_whole(images)
    assert_nothing_stays(images)
    assert images.import_tar(tar([entry("fine", data=b"x")]), "good").tags == ("good:latest",)


def test_what_climbs_stays_below_the_root(images: Images) -> None:
    outside = str(images._root.parent / "outside")
    up = "../" * 8
    image = images.import_tar(
        tar(
            [
                entry(f"{up}outside/{VICTIM}", data=b"climbed"),
                entry(f"{outside}/{VICTIM}", data=b"absolute"),
                entry("door", SYMLINK, outside),
                entry(f"door/{VICTIM}", data=b"through a link"),
                entry("window", SYMLINK, f"{up}{outside}"),
                entry("window/more", data=b"x"),
                entry("door/.wh.victim"),
                entry("door/sub/.wh..wh..opq"),
            ]
        )
    )
    assert_outside_is_whole(images)
    inside = image.layers[0]
    assert (inside / "outside" / VICTIM).read_text() == "climbed"
    whiteout = (inside / outside.lstrip("/") / VICTIM).lstat()
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0
    assert (inside / outside.lstrip("/") / "more").read_text() == "x"


def test_times_are_not_set_through_a_link_that_came_later(images: Images) -> None:
    outside = str(images._root.parent)
    items = [entry("a", DIRECTORY), entry("a/outside", DIRECTORY, mtime=77), entry("a", SYMLINK, outside)]
    images.import_tar(tar(items))
    assert_outside_is_whole(images)


def test_the_last_of_two_entries_of_a_name_wins_and_links_are_replaced(images: Images) -> None:
    outside = str(images._root.parent / "outside")
    items = [entry("a", data=b"first"), entry("a", SYMLINK, f"{outside}/{VICTIM}"), entry("a", data=b"last")]
    image = images.import_tar(tar(items))
    assert_outside_is_whole(images)
    assert (image.layers[0] / "a").read_bytes() == b"last" and not (image.layers[0] / "a").is_symlink()


def test_owners_setuid_and_devices_are_kept(images: Images) -> None:
    items = [
        entry("su", data=b"x", mode=0o4755, uid=7, gid=8),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("pipe", tarfile.FIFOTYPE, mode=0o600),
        entry("sticky", DIRECTORY, mode=0o1777),
    ]
    layer = images.import_tar(tar(items)).layers[0]
    found = (layer / "su").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4755, 7, 8)
    assert (layer / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((layer / "pipe").stat().st_mode)
    assert stat.S_IMODE((layer / "sticky").stat().st_mode) == 0o1777


def test_sizes_that_lie_are_refused(images: Images) -> None:
    cut = entry("huge")
    cut.size = 1 << 30
    head = cut.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ArchiveError, match="can't be read"):
        images.import_tar(io.BytesIO(head + b"few bytes"))
    cut.size = archive.MAX_BYTES + 1
    with pytest.raises(ArchiveError, match="more than 64 GiB"):
        images.import_tar(io.BytesIO(cut.tobuf(tarfile.GNU_FORMAT) + b"few bytes"))
    with pytest.raises(ArchiveError, match="can't be read"):
        images.import_tar(io.BytesIO(gzip.compress(b"x" * 5000)[:-20]))
    assert_nothing_stays(images)


def test_what_unpacks_to_too_much_is_refused(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_LAYER_BYTES", 1 << 20)
    with pytest.raises(ImageError, match="A layer has more than"):
        images.import_tar(io.BytesIO(gzip.compress(bytes(4 << 20))))
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    with pytest.raises(ArchiveError, match="more than 3 entries"):
        images.import_tar(tar([entry(str(number)) for number in range(5)]))
    assert_nothing_stays(images)


def saved(layers: list[bytes], names: list[str], diffs: list[str] | None = None) -> io.BytesIO:
    """An archive as `docker save` makes it."""
    digests = diffs or [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = json.dumps({"os": "linux", "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"diff_ids": digests}}).encode()
    manifest = [{"Config": "config.json", "RepoTags": ["saved:1"], "Layers": names}]
    items = [entry("config.json", data=config), entry("manifest.json", data=json.dumps(manifest).encode())]
    items += [entry(f"{number}/layer.tar", data=layer) for number, layer in enumerate(layers)]
    return tar(items)


def test_a_saved_image_is_loaded_all_or_not_at_all(images: Images) -> None:
    good = tar([entry("a", data=b"x")]).getvalue()
    bad = tar([entry("a/..", data=b"x")]).getvalue()
    for archive_, reason in (
        (saved([good, bad], ["0/layer.tar", "1/layer.tar"]), "points out of the archive"),
        (saved([good, good + b"\0"], ["0/layer.tar", "1/layer.tar"], ["sha256:" + "0" * 64] * 2), "has the digest"),
        (saved([good], ["../../outside/victim"]), "does not hold it"),
        (saved([good], ["0/layer.tar", "0/layer.tar"]), "disagree"),
        (saved([good], ["0/layer.tar"], ["../../../outside"]), "no layer digest"),
        (tar([entry("manifest.json", data=b"[1]")]), "can't be understood"),
        (tar([entry("manifest.json", data=b"{")]), "can't be understood"),
        (tar([entry("manifest.json", SYMLINK, "/etc/passwd")]), "does not hold it"),
        (tar([entry("a", data=b"x")]), "neither"),
    ):
        with pytest.raises((ArchiveError, ImageError), match=reason):
            images.load(archive_)
        assert_outside_is_whole(images)
        assert_nothing_stays(images)
    image = images.load(saved([good], ["0/layer.tar"]))[0]
    assert image.tags == ("saved:1",) and (image.layers[0] / "a").read_bytes() == b"x"
    assert [done for item in images.remove("saved:1") for done in item] == ["Untagged", "Deleted"]
    assert_nothing_stays(images)


def test_an_index_that_names_itself_ends(images: Images) -> None:
    index = json.dumps({"manifests": [{"digest": "sha256:x"}]}).encode()
    with pytest.raises(ImageError):
        images.load(tar([entry("index.json", data=index), entry("blobs/sha256/x", data=index)]))
    assert_nothing_stays(images)
