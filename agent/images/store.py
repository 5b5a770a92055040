"""Images on disk: configs by digest, unpacked layers by diff id, and the tags that name them. It pulls nothing.

Below its directory: `images/<id>.json` (the config, as loaded), `layers/<diff id>/` and `tags.json`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import tempfile
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from agent import durable
from agent.images.archive import MAX_BYTES, ArchiveError, inside, unpack

FORMAT = 1
MAX_CONFIG_BYTES = 8 << 20
MAX_LAYER_BYTES = MAX_BYTES + (8 << 30)
"""Of a layer's uncompressed tar, with its headers."""
MAX_NESTED_INDEXES = 4
COPY_BYTES = 1 << 20
SPOOL = "given"
_NAME = re.compile(r"[a-z0-9]+(?:[._\-:/]+[a-z0-9]+)*\Z")
_TAG = re.compile(r"[\w][\w.\-]{0,127}\Z")


class ImageError(Exception):
    """An image can't be found, read or removed. `status` is the Docker API's."""

    def __init__(self, reason: str, status: int = 500) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Image:
    """An image that is here."""

    id: str
    """`sha256:` and the digest of its config."""
    config: Mapping[str, Any]
    layers: tuple[Path, ...]
    """Bottom first."""
    tags: tuple[str, ...]
    size: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """Cmd, Entrypoint, Env and so on."""
        return self.config.get("config") or {}


def normal(reference: str) -> str:
    """`name:tag` of a reference, `latest` when it says none; ImageError for what is no reference."""
    name, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        name, tag = reference, "latest"
    if not _NAME.match(name) or not _TAG.match(tag):
        raise ImageError("invalid reference format", 400)
    for prefix in ("docker.io/library/", "docker.io/"):
        name = name.removeprefix(prefix)
    return f"{name}:{tag}"


class Images:
    """The images of one machine. Methods block on the disk: call the large ones in a thread."""

    def __init__(self, directory: Path) -> None:
        self._root = directory
        for name in ("images", "layers", "tmp"):
            (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in (directory / "tmp").iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._tags: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            saved = json.loads((directory / "tags.json").read_bytes())
            if saved["version"] > FORMAT:
                raise ImageError(f"{directory}/tags.json was written by a newer fleetd.")
            self._tags = saved["tags"]
        self._lock = threading.RLock()
        self._sweep()

    def resolve(self, reference: str) -> Image:
        """The image behind a name, a tag, an id or the beginning of one."""
        with contextlib.suppress(ImageError):
            if (digest := self._tags.get(normal(reference))) is not None:
                return self._image(digest)
        wanted = reference.removeprefix("sha256:")
        if re.fullmatch(r"[0-9a-f]{4,64}", wanted):
            found = [path.stem for path in (self._root / "images").glob(f"{wanted}*.json")]
            if len(found) == 1:
                return self._image(f"sha256:{found[0]}")
        raise ImageError(f"No such image: {reference if ':' in reference else normal(reference)}", 404)

    def all(self) -> list[Image]:
        """All images, the youngest first."""
        found = [self._image(f"sha256:{path.stem}") for path in (self._root / "images").glob("*.json")]
        return sorted(found, key=lambda image: str(image.config.get("created", "")), reverse=True)

    def import_tar(self, source: IO[bytes], reference: str = "", message: str = "") -> Image:
        """Make an image of one root file system; answer it, tagged when a reference is given."""
        tag = normal(reference) if reference else ""
        with self._lock:
            return self._import(source, tag, message)

    def _import(self, source: IO[bytes], tag: str, message: str) -> Image:
        diff = self._layer(source)
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        config = {
            "architecture": machine,
            "os": "linux",
            "created": now,
            "config": {},
            "comment": message,
            "rootfs": {"type": "layers", "diff_ids": [diff]},
            "history": [{"created": now, "comment": message or "Imported from -"}],
        }
        return self._add(json.dumps(config).encode(), [tag] if tag else [])

    def load(self, source: IO[bytes]) -> list[Image]:
        """Take the images of an archive of `docker save` or in OCI layout; all layers of an image, or none."""
        with self._lock, tempfile.TemporaryDirectory(dir=self._root / "tmp") as name:
            place = Path(name)
            unpack(source, place)
            try:
                if (place / "manifest.json").is_file():
                    return [
                        self._loaded(place, item["Config"], item["Layers"], item.get("RepoTags") or [])
                        for item in _json(place, "manifest.json")
                    ]
                if (place / "index.json").is_file():
                    return self._load_layout(place)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise ImageError(f"The archive's manifest or config can't be understood: {error!r}.", 400) from error
            finally:
                self._sweep()
        raise ImageError("The archive holds neither manifest.json nor index.json: it is no saved image.", 400)

    def tag(self, image: Image, reference: str) -> None:
        """Give an image one more name."""
        self._tags[normal(reference)] = image.id
        self._save()

    def remove(self, reference: str, *, force: bool = False) -> list[dict[str, str]]:
        """Take a name away, and the image with its last name; answer as the API does."""
        with self._lock:
            return self._removed(reference, force=force)

    def _removed(self, reference: str, *, force: bool) -> list[dict[str, str]]:
        image = self.resolve(reference)
        by_id = image.id.removeprefix("sha256:").startswith(reference.removeprefix("sha256:"))
        if by_id and len(image.tags) > 1 and not force:
            raise ImageError(
                f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple"
                " repositories",
                409,
            )
        gone = list(image.tags) if by_id else [normal(reference)]
        done = [{"Untagged": tag} for tag in gone]
        for tag in gone:
            self._tags.pop(tag, None)
        self._save()
        if image.id not in self._tags.values():
            (self._root / "images" / f"{image.id[7:]}.json").unlink()
            done.append({"Deleted": image.id})
            self._sweep()
        return done

    def _sweep(self) -> None:
        """Delete layers that no image has: of a removed image, of a load that failed or was cut off."""
        with self._lock:
            kept = {layer.name for image in self.all() for layer in image.layers}
            for path in (self._root / "layers").iterdir():
                if path.stem not in kept:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _load_layout(self, place: Path) -> list[Image]:
        images = []
        for item in _json(place, "index.json")["manifests"]:
            manifest = _json(place, _blob(item["digest"]))
            for _ in range(MAX_NESTED_INDEXES):
                if "manifests" not in manifest:
                    break
                manifest = _json(place, _blob(manifest["manifests"][0]["digest"]))
            notes = item.get("annotations") or {}
            name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
            layers = [_blob(layer["digest"]) for layer in manifest["layers"]]
            images.append(self._loaded(place, _blob(manifest["config"]["digest"]), layers, [name] if name else []))
        return images

    def _loaded(self, place: Path, config: str, layers: Sequence[str], tags: Sequence[str]) -> Image:
        text = _file(place, config).read_bytes()
        wanted = json.loads(text)["rootfs"]["diff_ids"]
        if len(wanted) != len(layers):
            raise ImageError("The image's config and its manifest disagree about the layers.", 400)
        for diff, layer in zip(wanted, layers, strict=True):
            if not self._layer_path(diff).is_dir():
                with _file(place, layer).open("rb") as source:
                    self._layer(source, diff)
        return self._add(text, [normal(tag) for tag in tags])

    def _layer(self, source: IO[bytes], wanted: str = "") -> str:
        """Unpack a layer, and answer its diff id: the digest of its uncompressed tar."""
        with tempfile.TemporaryDirectory(dir=self._root / "tmp") as name:
            plain = Path(name) / "layer.tar"
            digest = hashlib.sha256()
            with plain.open("wb") as out, _plain(source, Path(name)) as content:
                while piece := _piece(content):
                    digest.update(piece)
                    out.write(piece)
                    if out.tell() > MAX_LAYER_BYTES:
                        raise ImageError(f"A layer has more than {MAX_LAYER_BYTES >> 30} GiB.", 400)
            diff = f"sha256:{digest.hexdigest()}"
            if wanted and diff != wanted:
                raise ImageError(f"A layer has the digest {diff}, but its image says {wanted}.", 400)
            target = self._layer_path(diff)
            if not target.is_dir():
                fresh = Path(name) / "root"
                fresh.mkdir(mode=0o755)
                with plain.open("rb") as content:
                    size = unpack(content, fresh)
                target.with_suffix(".size").write_text(str(size))
                for spent in (plain, Path(name) / SPOOL):
                    spent.unlink()  # so that they are not written to the disk with the layer
                durable.sync_file_system(fresh)
                fresh.rename(target)
                durable.sync_folder(target.parent)
        return diff

    def _layer_path(self, diff: str) -> Path:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", diff):
            raise ImageError(f"'{diff}' is no layer digest.", 400)
        return self._root / "layers" / diff[7:]

    def _add(self, config: bytes, tags: Sequence[str]) -> Image:
        digest = hashlib.sha256(config).hexdigest()
        durable.replace(self._root / "images" / f"{digest}.json", config)
        for tag in tags:
            self._tags[tag] = f"sha256:{digest}"
        self._save()
        return self._image(f"sha256:{digest}")

    def _image(self, digest: str) -> Image:
        config = json.loads((self._root / "images" / f"{digest[7:]}.json").read_bytes())
        layers = tuple(self._layer_path(diff) for diff in config["rootfs"]["diff_ids"])
        size = 0
        for layer in layers:
            with contextlib.suppress(OSError, ValueError):
                size += int(layer.with_suffix(".size").read_text())
        tags = tuple(sorted(tag for tag, image in self._tags.items() if image == digest))
        return Image(digest, config, layers, tags, size)

    def _save(self) -> None:
        durable.replace(self._root / "tags.json", json.dumps({"version": FORMAT, "tags": self._tags}).encode())


def _piece(content: IO[bytes]) -> bytes:
    try:
        return content.read(COPY_BYTES)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ArchiveError(f"The archive can't be read: {error}.") from error


def _plain(source: IO[bytes], place: Path) -> IO[bytes]:
    """The uncompressed bytes of a stream that may not seek."""
    spool = (place / SPOOL).open("w+b")
    shutil.copyfileobj(source, spool, COPY_BYTES)
    spool.seek(0)
    magic = spool.read(6)
    spool.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=spool)  # type: ignore[return-value]
    if magic[:3] == b"BZh" or magic == b"\xfd7zXZ\0":
        return bz2.BZ2File(spool) if magic[:3] == b"BZh" else lzma.LZMAFile(spool)
    return spool


def _file(place: Path, name: str) -> Path:
    path = inside(place, name)
    if path.is_symlink():
        path = inside(place, str(path.parent.relative_to(place) / path.readlink()))
    if path.is_symlink() or not path.is_file():
        raise ImageError(f"The archive says '{name}', but does not hold it.", 400)
    return path


def _json(place: Path, name: str) -> Any:
    path = _file(place, name)
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ImageError(f"'{name}' in the archive is too large.", 400)
    return json.loads(path.read_bytes())


def _blob(digest: str) -> str:
    kind, _, value = digest.partition(":")
    return f"blobs/{kind}/{value}"
