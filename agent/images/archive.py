"""Unpacks a layer's tar below a directory that it can't leave: links are followed as if that directory were `/`.

It turns whiteouts into overlayfs's and keeps owners, modes, times, devices and attributes. It knows no images.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from pathlib import Path
from typing import IO

MAX_ENTRIES = 1_000_000
MAX_BYTES = 64 << 30
MAX_LINKS = 40
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
XATTR = "SCHILY.xattr."


class ArchiveError(Exception):
    """An archive is broken, hostile or too large; the text says which entry."""


def unpack(source: IO[bytes], root: Path) -> int:
    """Unpack a tar (plain, gzip, bzip2 or xz) into `root`; answer the bytes of its files."""
    root = root.resolve()
    total = 0
    directories: list[tuple[Path, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            for number, entry in enumerate(archive):
                if number >= MAX_ENTRIES:
                    raise ArchiveError(f"The archive has more than {MAX_ENTRIES} entries.")
                total += max(entry.size, 0)
                if total > MAX_BYTES:
                    raise ArchiveError(f"The archive holds more than {MAX_BYTES >> 30} GiB.")
                try:
                    _entry(archive, entry, root, directories)
                except (OSError, ValueError, OverflowError) as error:
                    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                        raise
                    reason = (isinstance(error, OSError) and error.strerror) or str(error)
                    raise ArchiveError(f"The entry '{entry.name}' can't be made: {reason}.") from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(f"The archive can't be read: {error}.") from error
    for path, entry in reversed(directories):
        # A later entry may have put a link in its way: what it leads to is none of ours.
        if inside(root, entry.name) == path and path.is_dir() and not path.is_symlink():
            _set_times(path, entry)
    return total


def inside(root: Path, name: str) -> Path:
    """Where `name` is below `root`, its last part not followed; links on the way stay below `root`."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts:
        return root
    last = parts.pop()
    if last == "..":
        raise ArchiveError(f"The entry '{name}' points out of the archive.")
    place, links = root, 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            place = place.parent if place != root else root
            continue
        step = place / part
        if step.is_symlink():
            links += 1
            if links > MAX_LINKS:
                raise ArchiveError(f"The entry '{name}' goes through too many links.")
            target = str(step.readlink())
            parts[:0] = target.split("/")
            place = root if target.startswith("/") else place
            continue
        place = step
    return place / last


def _entry(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, root: Path, directories: list[tuple[Path, tarfile.TarInfo]]
) -> None:
    path = inside(root, entry.name)
    if path == root and not entry.isdir():
        raise ArchiveError(f"The entry '{entry.name}' would replace the root itself.")
    if path != root:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == OPAQUE:
        os.setxattr(path.parent, "trusted.overlay.opaque", b"y")
        return
    if path.name.startswith(WHITEOUT):
        name = path.name.removeprefix(WHITEOUT)
        if name in ("", ".", ".."):
            raise ArchiveError(f"The whiteout '{entry.name}' names nothing that is in its directory.")
        hidden = path.with_name(name)
        _clear(hidden)
        os.mknod(hidden, stat.S_IFCHR | 0o000, os.makedev(0, 0))
        return
    if entry.isdir():
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            _clear(path)
        path.mkdir(exist_ok=True)
        directories.append((path, entry))
    else:
        _clear(path)
        if entry.issym():
            path.symlink_to(entry.linkname)
        elif entry.islnk():
            target = inside(root, entry.linkname)
            try:
                os.link(target, path, follow_symlinks=False)
            except OSError as error:
                raise ArchiveError(f"The link '{entry.name}' can't be made: {error.strerror}.") from error
            return
        elif entry.isreg():
            content = archive.extractfile(entry)
            assert content is not None
            with path.open("xb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
        elif entry.isfifo():
            os.mkfifo(path)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(entry.devmajor, entry.devminor))
        else:
            raise ArchiveError(f"The entry '{entry.name}' is of an unknown kind.")
    _attributes(path, entry)


def _attributes(path: Path, entry: tarfile.TarInfo) -> None:
    os.lchown(path, entry.uid, entry.gid)
    if not entry.issym():
        path.chmod(entry.mode & 0o7777)
    for name, value in entry.pax_headers.items():
        if name.startswith(XATTR) and not name.startswith(XATTR + "trusted."):
            with contextlib.suppress(OSError):
                raw = value.encode("utf-8", "surrogateescape")
                os.setxattr(path, name.removeprefix(XATTR), raw, follow_symlinks=False)
    _set_times(path, entry)


def _set_times(path: Path, entry: tarfile.TarInfo) -> None:
    with contextlib.suppress(OSError, OverflowError, ValueError):
        os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
