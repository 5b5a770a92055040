"""Users and roles in a real cluster: what lasts, what ends, and whose tokens are whose."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore import backup
from kvstore.client import Client
from kvstore.errors import StoreError
from tests.certificates import Authority
from tests.conformance.etcd.side import FOREIGN, Foreign
from tests.conformance.members import OURS, Member, Members, etcd_path, etcdctl_path, running, until
from tests.conformance.secured import SecureMembers, clients_flags, context, shown

pytestmark = pytest.mark.skipif(
    etcdctl_path() is None or not FOREIGN.is_file(), reason="etcdctl or the foreign client is not here: run make setup"
)
NEEDS_ETCD = pytest.mark.skipif(etcd_path() is None, reason="etcd is not here: run make setup")
ETCD = (str(etcd_path()), "--logger=zap", "--log-level=error")
QUICK = ["--heartbeat-interval=60", "--election-timeout=600", "--bcrypt-cost=4"]
ROOT = ("--user", "root:rootpw")
ALICE = ("--user", "alice:alicepw")
SECRETS = ("rootpw", "alicepw", "$2a$")


def make_users(members: Members) -> None:
    """Root, and alice who may do what she wants below `a/`; authentication is on."""
    for words in [
        "user add root:rootpw",
        "user grant-role root root",
        "user add alice:alicepw",
        "role add r",
        "role grant-permission r --prefix=true readwrite a/",
        "user grant-role alice r",
        "auth enable",
    ]:
        members.ctl(*words.split())


def holds(members: Members, at: Member) -> None:
    """Who may do what is the same at this member as it was made."""
    members.ctl(*ALICE, "put", "a/1", at.name, at=[at])
    assert members.ctl(*ALICE, "get", "a/1", "--print-value-only", at=[at]) == f"{at.name}\n"
    for user, said in [(ALICE, "permission denied"), ((), "user name is empty")]:
        assert said in members.ctl_raw(*user, "put", "b", "1", at=[at]).stderr
    assert members.ctl(*ROOT, "user", "list", at=[at]) == "alice\nroot\n"


class Caller:
    """Raw calls, with the token of a user."""

    def __init__(self, log: Path) -> None:
        self.foreign = Foreign(log)

    def call(self, member: Member, method: str, token: str = "", **request: Any) -> dict[str, Any]:
        at = member.client_url.removeprefix("http://")
        metadata = {"token": token} if token else {}
        return self.foreign.do("call", at=at, method=method, request=request, metadata=metadata)

    def token(self, member: Member, name: str) -> str:
        answer = self.call(member, "Auth/Authenticate", name=name, password=f"{name}pw")
        return str(answer["response"]["token"])


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    made = Caller(tmp_path / "foreign.log")
    try:
        yield made
    finally:
        made.foreign.close()


def test_users_outlast_restarts_a_lost_leader_and_a_lost_disk(tmp_path: Path) -> None:
    members = Members(tmp_path, 3, [*QUICK, "--snapshot-count=10"])
    with running(members):
        make_users(members)
        for each in members.members:
            holds(members, each)
        led = members.leader()
        led.stop(9)
        rest = [each for each in members.members if each is not led]
        until("leader among the rest", lambda: members.ctl_raw(*ALICE, "put", "a/2", "1", at=rest).returncode == 0)
        for each in rest:
            holds(members, each)
        led.start(members.initial)
        members.wait()
        holds(members, led)
        for each in members.members:
            each.stop()
        members.start()
        for each in members.members:
            holds(members, each)
        # A member without its disk is removed, and comes back as another, by a snapshot.
        lost = members.members[2]
        listed = json.loads(members.ctl(*ROOT, "member", "list", "-w", "json"))["members"]
        identity = next(one["ID"] for one in listed if one["name"] == lost.name)
        lost.stop()
        rest = members.members[:2]
        members.ctl(*ROOT, "member", "remove", f"{identity:x}", at=rest)
        for number in range(40):
            members.ctl(*ALICE, "put", "a/3", str(number), at=rest)
        add = (*ROOT, "member", "add", "again", f"--peer-urls={lost.peer_url}")
        until("addition", lambda: members.ctl_raw(*add, at=rest).returncode == 0)
        lost.name = "again"
        lost.start(members.initial, "existing")
        members.wait()
        holds(members, lost)
    for each in members.members:
        told = each.log.read_text()
        assert not any(secret in told for secret in SECRETS), "a secret is in a log"


def test_a_token_is_good_everywhere_and_ends_when_nobody_shows_it(tmp_path: Path, caller: Caller) -> None:
    members = Members(tmp_path, 3, [*QUICK, "--auth-token-ttl=3"])
    with running(members):
        make_users(members)
        first, second, third = members.members
        token = caller.token(first, "alice")
        for number in range(30):
            # At the other members it may be shown before they know it. One that is shown lives on.
            assert caller.call(first, "KV/Range", token, key="a/1")["code"] == "OK"
            fresh = caller.token(first, "alice")
            answer = caller.call((second, third)[number % 2], "KV/Put", fresh, key="a/1", value="1")
            assert answer["code"] == "OK", answer
        unused = [caller.token(first, "alice") for _ in range(200)]

        def ended() -> bool:
            # One more each time: a token that is shown lives on.
            answer = caller.call(first, "KV/Range", unused.pop(), key="a/1")
            return answer.get("details") == "etcdserver: invalid auth token"

        until("end of the token", ended)
        assert caller.call(first, "KV/Range", caller.token(first, "alice"), key="a/1")["code"] == "OK"
        never = caller.call(second, "KV/Range", "x.99999999", key="a/1")
        assert never["details"] == "etcdserver: invalid auth token"


def test_a_watch_ends_when_its_user_may_no_longer_read(tmp_path: Path, caller: Caller) -> None:
    members = Members(tmp_path, 1, QUICK)
    with running(members):
        make_users(members)
        member = members.members[0]
        token = caller.token(member, "alice")
        at, foreign = member.client_url.removeprefix("http://"), caller.foreign
        foreign.do("open", at=at, stream="w", method="Watch/Watch", metadata={"token": token})
        for key in ("a/1", "a/2"):
            foreign.do("send", stream="w", request={"create_request": {"key": key}})
        foreign.do("take", stream="w", responses=2, events=0, end=False)
        members.ctl(*ROOT, "put", "a/1", "seen")
        taken = foreign.do("take", stream="w", responses=0, events=1, end=False)
        assert taken["responses"][0]["events"][0]["kv"]["value"] == "seen"
        members.ctl(*ROOT, "role", "grant-permission", "r", "read", "a/2")
        members.ctl(*ROOT, "role", "revoke-permission", "r", "a/", "--prefix")
        members.ctl(*ROOT, "put", "a/1", "hidden")
        members.ctl(*ROOT, "put", "a/2", "shown")
        taken = foreign.do("take", stream="w", responses=1, events=1, end=False)
        canceled, shown = sorted(taken["responses"], key=lambda one: bool(one.get("events")))
        assert canceled["canceled"] and canceled.get("watch_id", 0) == 0
        assert canceled["cancel_reason"] == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        assert [event["kv"]["value"] for event in shown["events"]] == ["shown"]
        members.ctl(*ROOT, "user", "delete", "alice")
        taken = foreign.do("take", stream="w", responses=1, events=0, end=False)
        assert taken["responses"][0]["canceled"]


def test_a_watch_from_before_authentication_ends_with_it(tmp_path: Path, caller: Caller) -> None:
    members = Members(tmp_path, 1, QUICK)
    with running(members):
        at, foreign = members.members[0].client_url.removeprefix("http://"), caller.foreign
        foreign.do("open", at=at, stream="w", method="Watch/Watch", metadata={})
        foreign.do("send", stream="w", request={"create_request": {"key": "a/1"}})
        foreign.do("take", stream="w", responses=1, events=0, end=False)
        make_users(members)
        taken = foreign.do("take", stream="w", responses=1, events=0, end=False)
        assert taken["responses"][0]["cancel_reason"].endswith("etcdserver: user name is empty")


def test_who_lags_judges_as_the_others_do(tmp_path: Path) -> None:
    members = Members(tmp_path, 3, QUICK)
    with running(members):
        make_users(members)
        members.ctl(*ROOT, "role", "grant-permission", "r", "readwrite", "b")
        for number in range(20):
            # Judged where the log is applied: what one member granted holds at the next at once.
            one, other = members.members[number % 3], members.members[(number + 1) % 3]
            members.ctl(*ROOT, "role", "revoke-permission", "r", "b", at=[one])
            denied = members.ctl_raw(*ALICE, "put", "b", "1", at=[other])
            assert "permission denied" in denied.stderr
            members.ctl(*ROOT, "role", "grant-permission", "r", "readwrite", "b", at=[one])
            members.ctl(*ALICE, "put", "b", "1", at=[other])


def openssl(place: Path, words: str) -> None:
    subprocess.run(["openssl", *words.split()], cwd=place, check=True, capture_output=True)


@NEEDS_ETCD
@pytest.mark.parametrize("method", ["RS256", "PS384", "ES256", "HS512"])
def test_signed_tokens_are_etcds(tmp_path: Path, caller: Caller, method: str) -> None:
    if method.startswith("ES"):
        openssl(tmp_path, "ecparam -name prime256v1 -genkey -noout -out private.pem")
        openssl(tmp_path, "ec -in private.pem -pubout -out public.pem")
    else:
        openssl(tmp_path, "genrsa -out private.pem 2048")
        openssl(tmp_path, "rsa -in private.pem -pubout -out public.pem")
    keys = f"pub-key={tmp_path}/public.pem,priv-key={tmp_path}/private.pem"
    flag = f"--auth-token=jwt,sign-method={method},{keys},ttl=1m"
    with (
        running(Members(tmp_path / "etcd", 1, [flag, "--bcrypt-cost=4"], ETCD)) as etcd,
        running(Members(tmp_path / "ours", 1, [flag, "--bcrypt-cost=4"], OURS)) as ours,
    ):
        for side in (ours, etcd):
            make_users(side)
            side.ctl(*ALICE, "put", "a/1", "1")
        for side, other in ((ours, etcd), (etcd, ours)):
            token = caller.token(side.members[0], "alice")
            assert token.count(".") == 2
            for each in (side, other):
                assert caller.call(each.members[0], "KV/Range", token, key="a/1")["code"] == "OK"
                refused = caller.call(each.members[0], "KV/Range", token, key="b")
                assert refused["details"] == "etcdserver: permission denied"
                broken = caller.call(each.members[0], "KV/Range", token[:-4] + "AAAA", key="a/1")
                assert broken["details"] == "etcdserver: invalid auth token"
        for side in (ours, etcd):
            # Whoever was let in before users and roles changed asks anew.
            token = caller.token(side.members[0], "alice")
            side.ctl(*ROOT, "user", "add", "bob:pw")
            old = caller.call(side.members[0], "KV/Range", token, key="a/1")
            assert old["details"] == "etcdserver: revision of auth store is old"


def test_a_member_with_the_public_key_alone_takes_tokens_and_gives_none(tmp_path: Path, caller: Caller) -> None:
    openssl(tmp_path, "genrsa -out private.pem 2048")
    openssl(tmp_path, "rsa -in private.pem -pubout -out public.pem")
    members = Members(tmp_path, 3, QUICK)
    for number, each in enumerate(members.members):
        key = f"pub-key={tmp_path}/public.pem" if number else f"priv-key={tmp_path}/private.pem"
        each.extra.append(f"--auth-token=jwt,sign-method=RS256,{key}")
    with running(members):
        make_users(members)
        signer, *others = members.members
        token = caller.token(signer, "alice")
        for each in members.members:
            assert caller.call(each, "KV/Put", token, key="a/1", value="1")["code"] == "OK"
        refused = caller.call(others[0], "Auth/Authenticate", name="alice", password="alicepw")
        assert (refused["code"], refused["details"]) == (
            "UNKNOWN",
            "auth: token signing attempted with verify-only key",
        )


def test_bad_settings_are_named(tmp_path: Path) -> None:
    for flag, said in [
        ("--auth-token=magic", "--auth-token is 'simple' or 'jwt,...', not 'magic'"),
        ("--auth-token=jwt,sign-method=ES512", "sign-method 'ES512' is none of"),
        ("--auth-token=jwt,sign-method=RS256,priv-key=/none", "No such file"),
        ("--auth-token=jwt,sign-method", "is not of the form key=value"),
        ("--bcrypt-cost=x", "'x' is not a whole number"),
    ]:
        command = [*OURS, "--data-dir", str(tmp_path / "d"), flag]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and said in done.stderr, done.stderr


async def test_our_client_asks_for_a_token_whenever_it_needs_one(tmp_path: Path) -> None:
    members = Members(tmp_path, 3, [*QUICK, "--auth-token-ttl=1"])
    longer_than_a_token = 1.5
    with running(members):
        urls = [each.client_url for each in members.members]
        async with (
            Client(urls, login=("alice", "alicepw")) as alice,
            Client(urls, login=("alice", "wrong")) as wrong,
            Client(urls) as nobody,
            alice.watch(b"a/w") as watch,
        ):
            # Nobody is asked for yet; once somebody is, the watch ends, and goes on with a token.
            await alice.put(b"a/w", b"0")
            make_users(members)
            await alice.put(b"a/w", b"1")
            for client, key, said in [
                (alice, b"b", "permission denied"),
                (wrong, b"a/1", "invalid user ID or password"),
                (nobody, b"a/1", "user name is empty"),
            ]:
                with pytest.raises(StoreError, match=said):
                    await client.put(key, b"1")
            lease = await alice.lease_grant(60)
            await asyncio.sleep(longer_than_a_token)
            assert (await alice.lease_keepalive(lease.id)).ttl == 60
            await asyncio.sleep(longer_than_a_token)
            await alice.put(b"a/w", b"2")
            await asyncio.sleep(longer_than_a_token)
            await alice.status(urls[0])
            members.leader().stop(9)
            members.leader()
            await alice.put(b"a/w", b"3")
            values: list[bytes] = []
            while b"3" not in values:
                values += [event.kv.value for event in (await anext(watch)).events]
            assert values == [b"0", b"1", b"2", b"3"]
        url = next(each.client_url for each in members.members if each.process is not None)
        with pytest.raises(backup.BackupError, match="permission denied"):
            backup.save(url, tmp_path / "no.db", login=("alice", "alicepw"))
        backup.save(url, tmp_path / "whole.db", login=("root", "rootpw"))
        assert backup.status(tmp_path / "whole.db").revision > 1


@pytest.mark.parametrize("command", [OURS, pytest.param(ETCD, marks=NEEDS_ETCD)], ids=["ours", "etcd"])
def test_a_certificates_common_name_is_a_user(tmp_path: Path, command: tuple[str, ...]) -> None:
    authority = Authority(tmp_path / "ca")
    alice, bob = authority.issue("alice", []), authority.issue("bob", [])
    flags = clients_flags(authority.issue("server"), authority)
    trust = context(authority.cert, alice)
    members = SecureMembers(tmp_path, 1, lambda _: flags, command=command, trust=trust, show=shown(alice, authority))
    with running(members):
        make_users(members)
        members.ctl("put", "a/1", "1")
        assert "permission denied" in members.ctl_raw("put", "b", "1").stderr
        # A token goes before the certificate.
        members.ctl(*ROOT, "put", "b", "1")
        assert "invalid user ID or password" in members.ctl_raw("--user", "alice:x", "put", "a/1", "1").stderr
        members.show = shown(bob, authority)
        assert "permission denied" in members.ctl_raw("put", "a/1", "1").stderr
        members.ctl(*ROOT, "user", "delete", "alice")
        members.show = shown(alice, authority)
        assert "permission denied" in members.ctl_raw("put", "a/1", "1").stderr
