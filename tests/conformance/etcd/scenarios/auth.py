"""Users and roles by etcdctl and by raw gRPC: how they are made, shown and taken away, and who may do that."""

from typing import Any

from tests.conformance.etcd.scenarios.etcdctl_kv import each_format
from tests.conformance.etcd.steps import Call, Ctl, Scenario, Step

ROOT = "--user root:rootpw"
ALICE = "--user alice:alicepw"
MADE = (Ctl("user add root:rootpw"), Ctl("role add root"), Ctl("user grant-role root root"))
"""Root, with its role."""
ON = (*MADE, Ctl("auth enable"))
"""Authentication is on."""


def auth(method: str, token: str = "", since: tuple[int, int] = (3, 4), **request: Any) -> Call:
    """A call of the Auth service, in the name of who has the token in that variable."""
    return Call(f"Auth/{method}", request, {"token": f"{{{token}}}"} if token else {}, since=since)


def login(name: str, password: str) -> Step:
    """Keep a user's token as `<name>_token`."""
    return Call("Auth/Authenticate", {"name": name, "password": password}, save={f"{name}_token": "response.token"})


def grant(name: str, kind: str, key: str, range_end: str = "", **kwargs: Any) -> Call:
    perm = {"permType": kind, "key": key, "range_end": range_end}
    return auth("RoleGrantPermission", name=name, perm=perm, **kwargs)


SCENARIOS = (
    Scenario(
        "etcdctl user and role",
        (
            *each_format("user add alice:pw"),
            Ctl("user add bob --interactive=false", stdin="pw\n"),
            Ctl("user add robot --no-password"),
            Ctl("user add"),
            Ctl("user add :pw"),
            *each_format("user list"),
            *each_format("role add reader"),
            Ctl("role add writer"),
            Ctl("role add"),
            *each_format("role list"),
            *each_format("role grant-permission reader read a/ --prefix"),
            Ctl("role grant-permission reader write b"),
            Ctl("role grant-permission reader readwrite c d"),
            Ctl("role grant-permission reader read e --from-key"),
            Ctl("role grant-permission reader read '' --prefix"),
            Ctl("role grant-permission reader run x"),
            Ctl("role grant-permission nobody read x"),
            Ctl("role grant-permission reader read d c", since=(3, 5)),
            Ctl("role grant-permission reader"),
            *each_format("role get reader"),
            Ctl("role get nobody"),
            *each_format("role revoke-permission reader b"),
            Ctl("role revoke-permission reader a/ --prefix"),
            Ctl("role revoke-permission reader e --from-key"),
            Ctl("role revoke-permission reader c"),
            Ctl("role revoke-permission reader c d"),
            Ctl("role revoke-permission nobody c d"),
            Ctl("role get reader"),
            *each_format("user grant-role alice reader"),
            Ctl("user grant-role alice writer"),
            Ctl("user grant-role alice nobody"),
            Ctl("user grant-role nobody reader"),
            *each_format("user get alice"),
            Ctl("user get alice --detail"),
            Ctl("user get nobody"),
            Ctl("user get robot"),
            *each_format("user revoke-role alice reader"),
            Ctl("user revoke-role nobody reader"),
            Ctl("user passwd alice --interactive=false", stdin="pw2\n"),
            Ctl("user passwd nobody --interactive=false", stdin="pw2\n"),
            *each_format("role delete writer"),
            Ctl("role delete writer"),
            Ctl("user get alice"),
            *each_format("user delete bob"),
            Ctl("user delete bob"),
            *each_format("user list"),
        ),
    ),
    Scenario(
        "etcdctl auth",
        (
            Ctl("auth status", since=(3, 5)),
            Ctl("auth enable"),
            Ctl("user add root:rootpw"),
            *MADE[1:],
            *each_format("auth enable"),
            Ctl("auth enable"),
            Ctl("user list"),
            Ctl(f"user list {ROOT}"),
            Ctl("user list --user root:wrong"),
            Ctl("user list --user nobody:rootpw"),
            Ctl("user list --user root", stdin="rootpw\n"),
            Ctl("user list --user root --password rootpw"),
            Ctl(f"user add alice:alicepw {ROOT}"),
            Ctl(f"user list {ALICE}"),
            Ctl(f"role list {ALICE}"),
            Ctl(f"auth disable {ALICE}"),
            Ctl(f"user get alice {ALICE}"),
            Ctl(f"user get root {ALICE}"),
            Ctl(f"role get root {ALICE}"),
            Ctl(f"role get root {ROOT}", since=(3, 5)),
            Ctl(f"user delete root {ROOT}"),
            Ctl(f"role delete root {ROOT}"),
            Ctl(f"user revoke-role root root {ROOT}"),
            Ctl(f"user passwd alice {ROOT} --interactive=false", stdin="new\n"),
            Ctl(f"get a {ALICE}"),
            Ctl("get a --user alice:new"),
            Ctl("auth disable"),
            *each_format(f"auth disable {ROOT}"),
            Ctl("auth disable"),
            Ctl(f"get a {ROOT}"),
        ),
    ),
    Scenario(
        "auth: each call, without authentication",
        (
            auth("AuthEnable"),
            auth("AuthDisable"),
            auth("Authenticate", name="root", password="x"),
            auth("UserAdd"),
            auth("UserAdd", name="root", password="rootpw"),
            auth("UserAdd", name="root", password="rootpw"),
            auth("AuthEnable"),
            auth("UserAdd", name="long", password="x" * 73, since=(3, 6)),
            auth("UserAdd", name="none", options={"no_password": True}),
            auth("UserAdd", name="blank"),
            auth("UserList"),
            auth("UserGet", name="none"),
            auth("UserGet", name="x"),
            auth("UserGrantRole", user="x", role="root"),
            auth("UserGrantRole", user="root", role="x"),
            auth("UserGrantRole", user="root", role="root"),
            auth("UserGrantRole", user="root", role="root"),
            auth("RoleList"),
            auth("RoleAdd"),
            auth("RoleAdd", name="r"),
            auth("RoleAdd", name="r"),
            auth("RoleGrantPermission", name="r", since=(3, 5)),
            grant("r", "READ", "", since=(3, 5)),
            grant("r", "READ", "b", "a", since=(3, 5)),
            grant("r", "READ", "a"),
            grant("r", "WRITE", "a"),
            grant("r", "READWRITE", "a", "b"),
            grant("r", "READ", "c", "\0"),
            grant("r", "READ", "0", "1"),
            auth("RoleGet", role="r"),
            auth("RoleGet", role="x"),
            auth("RoleGet", role="root"),
            auth("RoleRevokePermission", role="r", key="a"),
            auth("RoleRevokePermission", role="r", key="a"),
            auth("RoleRevokePermission", role="x", key="a"),
            auth("RoleGet", role="r"),
            auth("UserGrantRole", user="none", role="r"),
            auth("UserGet", name="none"),
            auth("UserRevokeRole", name="none", role="x"),
            auth("UserRevokeRole", name="x", role="r"),
            auth("RoleDelete", role="x"),
            auth("RoleDelete", role="r"),
            auth("UserGet", name="none"),
            auth("UserChangePassword", name="x", password="y"),
            auth("UserChangePassword", name="none", password="y"),
            auth("UserChangePassword", name="blank", password="y"),
            auth("UserDelete", name="x"),
            auth("UserDelete", name="none"),
            auth("UserRevokeRole", name="root", role="root"),
            auth("UserDelete", name="root"),
            auth("UserList"),
        ),
    ),
    Scenario(
        "auth: the revision of users and roles",
        (
            auth("AuthStatus"),
            auth("UserAdd", name="root", password="rootpw"),
            auth("UserGrantRole", user="root", role="root"),
            auth("UserGrantRole", user="root", role="root"),
            auth("UserAdd", name="root", password="rootpw"),
            auth("AuthStatus"),
            auth("AuthEnable"),
            auth("AuthStatus"),
            login("root", "rootpw"),
            auth("AuthStatus", "root_token"),
            auth("AuthDisable", "root_token"),
            auth("AuthStatus"),
        ),
        since=(3, 7),
    ),
    Scenario(
        "auth: who may manage users",
        (
            *ON,
            login("root", "rootpw"),
            auth("Authenticate", name="root", password="wrong"),
            auth("Authenticate", name="nobody", password="rootpw"),
            auth("Authenticate", name="root"),
            auth("UserAdd", "root_token", name="alice", password="alicepw"),
            auth("UserAdd", "root_token", name="robot", options={"no_password": True}),
            auth("Authenticate", name="robot", password="x", since=(3, 5)),
            login("alice", "alicepw"),
            auth("RoleAdd", "root_token", name="r"),
            *(
                step
                for token in ("", "alice_token")
                for step in (
                    auth("AuthEnable", token),
                    auth("AuthDisable", token),
                    auth("UserAdd", token, name="x", password="y"),
                    auth("UserGet", token, name="alice"),
                    auth("UserGet", token, name="root"),
                    auth("UserGet", token, name="x"),
                    auth("UserList", token),
                    auth("UserDelete", token, name="x"),
                    auth("UserChangePassword", token, name="alice", password="y"),
                    auth("UserGrantRole", token, user="alice", role="root"),
                    auth("UserRevokeRole", token, name="alice", role="root"),
                    auth("RoleAdd", token, name="x"),
                    auth("RoleGet", token, role="r"),
                    auth("RoleGet", token, role="x"),
                    auth("RoleList", token),
                    auth("RoleDelete", token, role="r"),
                    auth("RoleGrantPermission", token, name="r", perm={"key": "a"}),
                    auth("RoleRevokePermission", token, role="r", key="a"),
                )
            ),
            auth("UserGrantRole", "root_token", user="alice", role="r"),
            auth("RoleGet", "alice_token", role="r"),
            auth("UserGet", "alice_token", name="alice"),
            auth("UserGrantRole", "root_token", user="alice", role="root"),
            auth("UserList", "alice_token"),
            auth("UserRevokeRole", "alice_token", name="alice", role="root"),
            auth("UserList", "alice_token"),
            auth("UserDelete", "root_token", name="root"),
            auth("RoleDelete", "root_token", role="root"),
            auth("UserRevokeRole", "root_token", name="root", role="root"),
        ),
    ),
    Scenario(
        "auth: tokens",
        (
            *ON,
            login("root", "rootpw"),
            auth("UserAdd", "root_token", name="alice", password="alicepw"),
            login("alice", "alicepw"),
            Call("Auth/UserGet", {"name": "alice"}, {"token": "Bearer {alice_token}"}, since=(3, 5)),
            Call("Auth/UserGet", {"name": "alice"}, {"authorization": "{alice_token}"}),
            Call("Auth/UserGet", {"name": "alice"}, {"authorization": "Bearer {alice_token}"}, since=(3, 5)),
            *(
                Call("Auth/UserGet", {"name": "alice"}, {"token": token})
                for token in ("x", "x.1", "x.y", "", ".", "x.1.2")
            ),
            # Etcd 3.4 waits for a revision that never comes.
            Call("Auth/UserGet", {"name": "alice"}, {"token": "x.-1"}, since=(3, 5)),
            Call("KV/Range", {"key": "a"}, {"token": "x.1"}),
            Call("KV/Put", {"key": "a"}, {"token": "x.1"}),
            Call("Cluster/MemberList", {}, {"token": "x.1"}, since=(3, 7)),
            # A changed password ends the tokens that the old one gave.
            auth("UserChangePassword", "root_token", name="alice", password="new"),
            auth("UserGet", "alice_token", name="alice"),
            auth("Authenticate", name="alice", password="alicepw"),
            login("alice", "new"),
            auth("UserGet", "alice_token", name="alice"),
            auth("UserDelete", "root_token", name="alice"),
            auth("UserGet", "alice_token", name="alice"),
            # So does turning authentication off.
            auth("AuthDisable", "root_token"),
            auth("UserList", "root_token", since=(3, 5)),
            auth("AuthEnable"),
            auth("UserList", "root_token"),
        ),
    ),
)
