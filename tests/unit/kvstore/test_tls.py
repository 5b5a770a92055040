"""The native client with certificates and socket files; what it says when one of them is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore import backup
from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.gateway import Gateway, is_well, main, trusting
from kvstore.gateway import member as member_of
from kvstore.tls import Tls
from tests.certificates import Authority
from tests.conformance.secured import SecureMembers, clients_flags, context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def member(authority: Authority) -> Iterator[SecureMembers]:
    """One that wants certificates, on a port and on socket files."""
    directory, alice = authority.directory, authority.issue("alice", [])
    flags = clients_flags(authority.issue("server", ["localhost", "127.0.0.1", "store.example"]), authority)
    members = SecureMembers(directory, 1, lambda _: flags, trust=context(authority.cert, alice))
    one = members.secure[0]
    more = f"{one.client_url},unix://{directory}/plain.sock,unixs://{directory}/secure.sock"
    one.start(members.initial, "new", "--listen-client-urls", more)
    try:
        members.wait()
        yield members
    finally:
        members.close()


def identity(authority: Authority, name: str = "alice", **rest: object) -> Tls:
    path = authority.directory / name
    return Tls(authority.cert, path.with_suffix(".pem"), path.with_suffix(".key"), **rest)  # type: ignore[arg-type]


async def test_endpoints_are_dialed_as_they_are_written(authority: Authority, member: SecureMembers) -> None:
    port, directory, tls = member.secure[0].client_port, authority.directory, identity(authority)
    for endpoint, shown in (
        (f"127.0.0.1:{port}", tls),
        (f"https://localhost:{port}", tls),
        (f"https://127.0.0.1:{port}", identity(authority, server_name="store.example")),
        (f"https://127.0.0.1:{port}", identity(authority, server_name="else.example", insecure_skip_verify=True)),
        (f"unix://{directory}/plain.sock", None),
        (f"unixs://{directory}/secure.sock", tls),
    ):
        async with Client([endpoint], tls=shown) as client:
            await client.put(b"k", endpoint.encode())
            assert (await client.get(b"k")).kvs[0].value == endpoint.encode()
            assert (await client.status(endpoint)).leader
            async with client.watch(b"k") as watch:
                await client.put(b"k", b"seen")
                async with asyncio.timeout(30):
                    async for batch in watch:
                        assert batch.events[0].kv.value == b"seen"
                        break


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ("stranger", "its certificate is signed by an authority that is not trusted here"),
        ("nobody", r"it asks for a client certificate \(--cert, --key\)"),
        ("else", "certificate not valid for name"),
        ("plain", "it does not serve|reset|closed|eof"),
    ],
)
async def test_a_wrong_identity_is_told_at_once(
    authority: Authority, member: SecureMembers, shown: str, sentence: str
) -> None:
    other = Authority(authority.directory.parent / "other")
    tls = {
        "stranger": Tls(other.cert),
        "nobody": Tls(authority.cert),
        "else": identity(authority, server_name="else.example"),
        "plain": None,
    }[shown]
    begin, patience = time.monotonic(), 5 if shown == "plain" else 30
    at = f"127.0.0.1:{member.secure[0].client_port}"
    async with Client([at], tls=tls, timeout=patience, patient=False) as client:
        with pytest.raises(StoreError, match=sentence):
            await client.get(b"k")
    if shown != "plain":
        assert time.monotonic() - begin < patience / 2


def test_wrong_files_are_a_value_error(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for tls, sentence in (
        (Tls(tmp_path / "none"), "open .*none: no such file or directory"),
        (Tls(tmp_path / "empty"), "empty holds no certificate"),
        (Tls(cert=authority.cert), "KeyFile and CertFile must both be present"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Client(["https://127.0.0.1:1"], tls=tls)


async def test_a_renewed_identity_is_shown_by_the_next_connection(authority: Authority, member: SecureMembers) -> None:
    other = Authority(authority.directory.parent / "renewing")
    wrong, right = other.issue("carol", []), authority.issue("carol", [])
    cert, key = other.directory / "shown.pem", other.directory / "shown.key"
    cert.write_bytes(wrong.cert.read_bytes())
    key.write_bytes(wrong.key.read_bytes())
    tls = Tls(authority.cert, cert, key)
    async with Client([member.secure[0].client_url], tls=tls, timeout=20, patient=False) as client:
        with pytest.raises(StoreError):
            await client.get(b"k")
        cert.write_bytes(right.cert.read_bytes())
        key.write_bytes(right.key.read_bytes())
        await client.get(b"k")


def test_a_snapshot_comes_over_tls(authority: Authority, member: SecureMembers, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    assert backup.save(member.secure[0].client_url, path, tls=identity(authority)) == path.stat().st_size
    with pytest.raises(backup.BackupError, match="asks for a client certificate"):
        backup.save(member.secure[0].client_url, path, tls=Tls(authority.cert))


async def test_a_gateway_asks_members_over_tls(authority: Authority, member: SecureMembers) -> None:
    place, alice = ("127.0.0.1", member.secure[0].client_port), identity(authority)
    other = Authority(authority.directory.parent / "gateway")
    assert await is_well(place, trusting(authority.cert, alice.cert, alice.key))
    assert await is_well(place, trusting(None, None, None)), "one that wants a certificate serves"
    assert not await is_well(place, trusting(other.cert, alice.cert, alice.key))
    assert not await is_well(place)
    gateway = await Gateway([place], {place: trusting(authority.cert, alice.cert, alice.key)}).serve("127.0.0.1", 0)
    port = gateway.sockets[0].getsockname()[1]
    async with Client([f"https://127.0.0.1:{port}"], tls=alice) as client:
        await client.put(b"k", b"v")
    gateway.close()


def test_a_gateway_names_the_file_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "--trusted-ca-file", "/none/ca.pem"]) == 2
    assert "/none/ca.pem: No such file or directory" in capsys.readouterr().err
    assert member_of("https://h:1") == (("h", 1), True)
    assert member_of("h:1") == (("h", 1), False)
