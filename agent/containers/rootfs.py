"""A container's root file system: the image's layers below, one writable layer above, joined by overlayfs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

MAX_OPTIONS_BYTES = 4095
TRASH = ".removed"
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def mount(place: Path, layers: Sequence[Path], *, passing: bool = False) -> Path:
    """Mount the root of a container that lives in `place`; answer where. Mounted already is fine.

    What is written into a `passing` one is not wanted after a power loss: nothing is synced for it. Otherwise the end
    of the mount syncs the whole file system below it, with everything that others have written there.
    """
    root, upper, work, short = (place / name for name in ("root", "upper", "work", "l"))
    for path in (root, upper, work, short):
        path.mkdir(mode=0o755, exist_ok=True)
    if root.is_mount():
        return root
    names = []
    for number, layer in enumerate(layers):
        link = short / str(number)
        if not link.is_symlink():
            link.symlink_to(layer)
        names.append(str(link))
    lower = ":".join(reversed(names))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if len(options) + len(",volatile") > MAX_OPTIONS_BYTES:
        raise OSError(f"the image has too many layers ({len(layers)}) for one mount")
    if layers:
        status = layers[-1].stat()
        upper.chmod(status.st_mode & 0o7777)
        os.chown(upper, status.st_uid, status.st_gid)
    if passing:
        # The kernel's own mark of an earlier such mount, which it refuses to go over (overlayfs, "Volatile mount").
        shutil.rmtree(work / "work" / "incompat", ignore_errors=True)
        if _overlay(root, f"{options},volatile") == 0:
            return root
    if (number := _overlay(root, options)) != 0:
        raise OSError(number, os.strerror(number), str(root))
    return root


def _overlay(root: Path, options: str) -> int:
    """Mount; answer the error's number, or 0."""
    if _libc.mount(b"overlay", os.fsencode(root), b"overlay", 0, options.encode()) == 0:
        return 0
    return ctypes.get_errno()


def unmount(place: Path) -> None:
    """Take the mount away, if there is one; what was written stays."""
    root = place / "root"
    if root.is_mount() and _libc.umount2(os.fsencode(root), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(root))


def discard(place: Path) -> Path:
    """Unmount what a container had and take it out of the way at once; answer what is left for `sweep`."""
    unmount(place)
    return set_aside(place)


def set_aside(path: Path) -> Path:
    """Take a directory, however large, out of the way at once; answer what is left for `sweep`."""
    trash = path.parent / TRASH
    trash.mkdir(mode=0o700, exist_ok=True)
    left = trash / path.name
    path.rename(left)
    return left


def sweep(directory: Path) -> None:
    """Delete what was taken out of a directory of containers or volumes, also by an earlier process."""
    with contextlib.suppress(FileNotFoundError):
        for path in (directory / TRASH).iterdir():
            shutil.rmtree(path, ignore_errors=True)
