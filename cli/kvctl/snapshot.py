"""kvctl's verbs on snapshots, which are etcd's own files: save status restore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cli.kvctl import gotext
from cli.kvctl.bar import Bar
from cli.kvctl.session import BAD_ARGUMENTS, advise, count, flags, identity
from cli.kvctl.show import allow, show
from cli.output import fail

T = TypeVar("T")
HEADINGS = ("hash", "revision", "total keys", "total size")
Files = Annotated[list[str] | None, typer.Argument(metavar="FILE", show_default=False)]
SkipHashCheck = Annotated[
    bool, typer.Option("--skip-hash-check", help="Take a copy of a data directory's file, which has no checksum.")
]


def _path(words: list[str] | None, message: str) -> Path:
    (word,) = count(words, 1, 1, message)
    return Path(word)


def _done(work: Callable[[], T]) -> T:
    from kvstore.backup import BackupError

    try:
        return work()
    except BackupError as error:
        advise(str(error))
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def save(words: Files = None) -> None:
    """Save the state of the member at --endpoints, which is to be one."""
    from kvstore import backup

    path = _path(words, "snapshot save expects one argument")
    if len(flags.endpoints) != 1:
        fail(f"A snapshot is taken of one member: name one, not {len(flags.endpoints)}.", BAD_ARGUMENTS)
    bar = Bar()
    try:
        _done(lambda: backup.save(flags.endpoints[0], path, bar, tls=flags.tls, login=identity()))
    finally:
        bar.close()
    print(f"Snapshot saved at {path}")


def status(words: Files = None, skip_hash_check: SkipHashCheck = False) -> None:
    """Read a snapshot through; print its hash, revision, records and size."""
    from kvstore import backup

    path = _path(words, "snapshot status requires exactly one argument")
    allow("table", "fields")
    found = _done(lambda: backup.status(path, skip_hash_check=skip_hash_check))
    told = {"hash": found.hash, "revision": found.revision}
    told |= {"totalKey": found.total_keys, "totalSize": found.total_bytes}
    row = [f"{found.hash:x}", str(found.revision), str(found.total_keys), gotext.size(found.total_bytes)]
    names = ("Hash", "Revision", "Keys", "Size")
    show(
        told,
        lambda: [", ".join(row)],
        fields=lambda: [f'"{name}" : {value}' for name, value in zip(names, told.values(), strict=True)],
        rows=lambda: (HEADINGS, [row]),
    )


def restore(
    words: Files = None,
    name: Annotated[str, typer.Option(help="The member's name.")] = "default",
    data_dir: Annotated[Path | None, typer.Option(help="A new directory; NAME.etcd when left out.")] = None,
    initial_cluster: Annotated[str, typer.Option(help="All members that are restored: name=url,name=url.")] = "",
    initial_cluster_token: Annotated[str, typer.Option(help="The new cluster's token.")] = "etcd-cluster",
    initial_advertise_peer_urls: Annotated[
        str, typer.Option(help="This member's peer URLs, separated by commas.")
    ] = "http://localhost:2380",
    skip_hash_check: SkipHashCheck = False,
) -> None:
    """Make a new member's data directory from a snapshot; start it with the same settings."""
    from kvstore import backup
    from kvstore.flags import FlagError, members

    path = _path(words, "snapshot restore requires exactly one argument")

    try:
        cluster = members(initial_cluster)
    except FlagError as error:
        fail(f"--initial-cluster: {error}.", BAD_ARGUMENTS)
    made = _done(
        lambda: backup.restore(
            path,
            name=name,
            data_dir=data_dir,
            initial_cluster=cluster,
            initial_cluster_token=initial_cluster_token,
            initial_advertise_peer_urls=initial_advertise_peer_urls.split(","),
            skip_hash_check=skip_hash_check,
        )
    )
    print(f"Snapshot {path} restored into {made}")
