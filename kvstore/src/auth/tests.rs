//! Users and roles in a store, by the log's commands: what changes, what is refused, what comes back after a restart.

use std::path::Path;

use super::*;
use crate::apply::{Response, Store};
use crate::command::{Command, Proposal};
use crate::pb::authpb::{permission::Type, UserAddOptions};
use crate::pb::etcd::compare::{CompareTarget, TargetUnion};
use crate::pb::etcd::request_op::Request;
use crate::pb::etcd::*;

struct Bench {
    store: Store,
}

fn caller(user: &str, revision: u64) -> Option<Caller> {
    Some(Caller {
        user: user.to_owned(),
        revision,
    })
}

impl Bench {
    fn open(folder: &Path) -> Self {
        let store = Store::open(folder).unwrap();
        Self { store }
    }

    /// Root and alice, who reads `a` to `c` and writes `b` alone; authentication is on.
    fn with_alice(folder: &Path) -> Self {
        let mut bench = Self::open(folder);
        for action in [
            add_user("root"),
            grant_role("root", "root"),
            add_user("alice"),
            add_role("readers"),
            grant("readers", Type::Read, "a", "c"),
            grant("readers", Type::Write, "b", ""),
            grant_role("alice", "readers"),
            Action::Enable(AuthEnableRequest {}),
        ] {
            bench.act(action).unwrap();
        }
        bench
    }

    fn send(&mut self, command: Command, caller: Option<Caller>) -> Result<Response, StoreError> {
        let index = self.store.applied().0 + 1;
        let proposal = Proposal {
            command: Some(command),
            caller,
            ..Default::default()
        };
        self.store.apply(index, 1, vec![proposal]).remove(0).result
    }

    fn act_as(&mut self, user: &str, action: Action) -> Result<(), StoreError> {
        let as_user = caller(user, self.store.auth.revision());
        self.send(Command::Auth(action.into()), as_user).map(drop)
    }

    fn act(&mut self, action: Action) -> Result<(), StoreError> {
        self.act_as(ROOT, action)
    }

    fn as_alice(&mut self, command: Command) -> Result<(), StoreError> {
        let alice = caller("alice", self.store.auth.revision());
        self.send(command, alice).map(drop)
    }
}

fn add_user(name: &str) -> Action {
    Action::UserAdd(AuthUserAddRequest {
        name: name.into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    })
}

fn add_role(name: &str) -> Action {
    Action::RoleAdd(AuthRoleAddRequest { name: name.into() })
}

fn grant_role(user: &str, role: &str) -> Action {
    Action::UserGrantRole(AuthUserGrantRoleRequest {
        user: user.into(),
        role: role.into(),
    })
}

fn revoke_role(name: &str, role: &str) -> Action {
    Action::UserRevokeRole(AuthUserRevokeRoleRequest {
        name: name.into(),
        role: role.into(),
    })
}

fn delete_user(name: &str) -> Action {
    Action::UserDelete(AuthUserDeleteRequest { name: name.into() })
}

fn delete_role(role: &str) -> Action {
    Action::RoleDelete(AuthRoleDeleteRequest { role: role.into() })
}

fn grant(role: &str, kind: Type, key: &str, end: &str) -> Action {
    Action::RoleGrantPermission(AuthRoleGrantPermissionRequest {
        name: role.into(),
        perm: Some(Permission {
            perm_type: kind.into(),
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
        }),
    })
}

fn revoke(role: &str, key: &str, end: &str) -> Action {
    Action::RoleRevokePermission(AuthRoleRevokePermissionRequest {
        role: role.into(),
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
    })
}

fn put_request(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn delete_request(key: &str, prev_kv: bool) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        prev_kv,
        ..Default::default()
    }
}

fn txn(compare: &str, success: Request, failure: Vec<RequestOp>) -> TxnRequest {
    let compare = Compare {
        key: compare.to_owned().into(),
        target: CompareTarget::Version.into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp {
            request: Some(success),
        }],
        failure,
    }
}

#[test]
fn each_change_counts_and_what_is_refused_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path());
    let mut revision = 1;
    for (action, expected) in [
        (
            Action::Enable(AuthEnableRequest {}),
            Err(StoreError::RootUserNotExist),
        ),
        (add_user(""), Err(StoreError::UserEmpty)),
        (add_user(&"x".repeat(401)), Err(StoreError::NameTooLong)),
        (add_user("root"), Ok(1)),
        (add_user("root"), Err(StoreError::UserExists)),
        (
            Action::Enable(AuthEnableRequest {}),
            Err(StoreError::RootRoleNotExist),
        ),
        (grant_role("root", "r"), Err(StoreError::RoleNotFound)),
        (grant_role("nobody", "root"), Err(StoreError::UserNotFound)),
        (grant_role("root", "root"), Ok(1)),
        (grant_role("root", "root"), Ok(0)),
        (add_role(""), Err(StoreError::RoleEmpty)),
        (add_role("r"), Ok(1)),
        (add_role("r"), Err(StoreError::RoleExists)),
        (
            grant("s", Type::Read, "a", ""),
            Err(StoreError::RoleNotFound),
        ),
        (
            grant("r", Type::Read, "b", "a"),
            Err(StoreError::InvalidAuthMgmt),
        ),
        (
            grant("r", Type::Read, "", "a"),
            Err(StoreError::InvalidAuthMgmt),
        ),
        (grant("r", Type::Read, "a", ""), Ok(1)),
        (revoke("r", "a", "b"), Err(StoreError::PermissionNotGranted)),
        (revoke("s", "a", ""), Err(StoreError::RoleNotFound)),
        (revoke("r", "a", ""), Ok(1)),
        (revoke_role("root", "r"), Err(StoreError::RoleNotGranted)),
        (grant_role("root", "r"), Ok(1)),
        (delete_role("s"), Err(StoreError::RoleNotFound)),
        (delete_user("nobody"), Err(StoreError::UserNotFound)),
        (Action::Enable(AuthEnableRequest {}), Ok(0)),
        (Action::Enable(AuthEnableRequest {}), Ok(0)),
        (delete_user("root"), Err(StoreError::InvalidAuthMgmt)),
        (delete_role("root"), Err(StoreError::InvalidAuthMgmt)),
        (
            revoke_role("root", "root"),
            Err(StoreError::InvalidAuthMgmt),
        ),
        (delete_role("r"), Ok(1)),
        (Action::Disable(AuthDisableRequest {}), Ok(1)),
        (Action::Disable(AuthDisableRequest {}), Ok(0)),
        (revoke_role("root", "root"), Ok(1)),
        (delete_user("root"), Ok(1)),
    ] {
        let told = format!("{action:?}");
        let done = bench.act(action);
        assert_eq!(done, expected.clone().map(drop), "{told}");
        revision += expected.unwrap_or(0);
        assert_eq!(bench.store.auth.revision(), revision, "{told}");
    }
}

#[test]
fn a_role_that_goes_is_taken_from_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_alice(folder.path());
    assert_eq!(bench.as_alice(Command::Put(put_request("b"))), Ok(()));
    bench.act(delete_role("readers")).unwrap();
    assert!(bench.store.auth.user("alice").unwrap().roles.is_empty());
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(bench.as_alice(Command::Put(put_request("b"))), denied);
}

#[test]
fn a_permission_on_the_same_range_is_changed_and_not_added() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path());
    bench.act(add_role("r")).unwrap();
    for (kind, end) in [
        (Type::Read, ""),
        (Type::Readwrite, "b"),
        (Type::Read, "b"),
        (Type::Write, ""),
    ] {
        bench.act(grant("r", kind, "a", end)).unwrap();
    }
    let held = bench.store.auth.permissions("r").unwrap();
    let kinds: Vec<_> = held.iter().map(Permission::perm_type).collect();
    assert_eq!(kinds, [Type::Write, Type::Read]);
}

#[test]
fn who_asks_decides_and_when_he_was_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_alice(folder.path());
    let now = bench.store.auth.revision();
    let put = || Command::Put(put_request("b"));
    for (who, expected) in [
        (None, Err(StoreError::UserEmpty)),
        (caller("", 0), Err(StoreError::UserEmpty)),
        (caller("alice", now - 1), Err(StoreError::AuthOldRevision)),
        (caller("bob", now), Err(StoreError::PermissionDenied)),
        (caller("alice", now), Ok(())),
        (caller("alice", now + 1), Ok(())),
        (caller("root", now), Ok(())),
    ] {
        let told = format!("{who:?}");
        assert_eq!(bench.send(put(), who).map(drop), expected, "{told}");
    }
    for (user, expected) in [
        ("", StoreError::UserEmpty),
        ("bob", StoreError::UserNotFound),
        ("alice", StoreError::PermissionDenied),
    ] {
        assert_eq!(bench.act_as(user, add_role("x")), Err(expected));
    }
    bench.act(Action::Disable(AuthDisableRequest {})).unwrap();
    assert_eq!(bench.send(put(), None).map(drop), Ok(()));
}

#[test]
fn every_part_of_a_command_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_alice(folder.path());
    let range = |key: &str, end: &str| {
        Request::RequestRange(RangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        })
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    let put = |key| Request::RequestPut(put_request(key));
    let nested = |compare, success| Request::RequestTxn(txn(compare, success, vec![]));
    let with_previous = |key| PutRequest {
        prev_kv: true,
        ..put_request(key)
    };
    let wide_delete = DeleteRangeRequest {
        range_end: "c".into(),
        ..delete_request("b", false)
    };
    for (number, (command, allowed)) in [
        (Command::Put(put_request("b")), true),
        (Command::Put(put_request("a")), false),
        (Command::Put(with_previous("b")), true),
        (Command::DeleteRange(delete_request("b", true)), true),
        (Command::DeleteRange(delete_request("a", false)), false),
        (Command::DeleteRange(wide_delete), false),
        (Command::Txn(txn("a", put("b"), vec![])), true),
        (Command::Txn(txn("d", put("b"), vec![])), false),
        (Command::Txn(txn("a", put("a"), vec![])), false),
        // The branch that does not run counts too.
        (Command::Txn(txn("a", put("b"), vec![op(put("a"))])), false),
        (
            Command::Txn(txn("a", range("a", "c"), vec![op(put("b"))])),
            true,
        ),
        (
            Command::Txn(txn("a", range("a", "d"), vec![op(put("b"))])),
            false,
        ),
        (Command::Txn(txn("a", nested("b", put("b")), vec![])), true),
        (Command::Txn(txn("a", nested("d", put("b")), vec![])), false),
        (Command::Txn(txn("a", nested("b", put("a")), vec![])), false),
        (
            Command::Txn(txn("a", put("b"), vec![op(nested("b", range("a", "\0")))])),
            false,
        ),
        (
            Command::Txn(txn(
                "a",
                Request::RequestDeleteRange(delete_request("a", false)),
                vec![],
            )),
            false,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let expected = if allowed {
            Ok(())
        } else {
            Err(StoreError::PermissionDenied)
        };
        assert_eq!(bench.as_alice(command), expected, "case {number}");
    }
    // Writing alone does not show what was there before.
    bench.act(grant("readers", Type::Write, "x", "")).unwrap();
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(bench.as_alice(Command::Put(put_request("x"))), Ok(()));
    assert_eq!(bench.as_alice(Command::Put(with_previous("x"))), denied);
    let delete = |previous| Command::DeleteRange(delete_request("x", previous));
    assert_eq!(bench.as_alice(delete(true)), denied);
    assert_eq!(bench.as_alice(delete(false)), Ok(()));
}

#[test]
fn a_lease_is_its_keys_writers_to_revoke_and_to_attach_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_alice(folder.path());
    let root = || caller(ROOT, 99);
    let attached = |key: &str, lease| {
        Command::Put(PutRequest {
            lease,
            ..put_request(key)
        })
    };
    for id in [1, 2] {
        let grant = LeaseGrantRequest { id, ttl: 60 };
        bench.send(Command::LeaseGrant(grant), root()).unwrap();
    }
    bench.send(attached("a", 1), root()).unwrap();
    bench.send(attached("b", 2), root()).unwrap();
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(bench.as_alice(attached("b", 1)), denied);
    assert_eq!(bench.as_alice(Command::LeaseRevoke(1)), denied);
    assert!(bench.store.leases().any(|(id, _)| id == 1));
    assert_eq!(bench.as_alice(attached("b", 2)), Ok(()));
    assert_eq!(bench.as_alice(Command::LeaseRevoke(2)), Ok(()));
    // What ends by itself ends in root's name.
    let own = bench.store.auth.own_caller();
    assert_eq!(own.as_ref().map(|caller| caller.user.as_str()), Some(ROOT));
    assert!(bench.send(Command::LeaseRevoke(1), own).is_ok());
}

#[test]
fn users_are_there_after_a_restart_and_tokens_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_alice(folder.path());
    let action = Action::Authenticate(Authenticate {
        name: "alice".into(),
        token_prefix: "abc".into(),
    });
    let index = bench.store.applied().0 + 1;
    let given = bench.send(Command::Auth(action.into()), None);
    let Ok(Response::Auth(Some(given))) = given else {
        panic!("{given:?}");
    };
    assert_eq!(given.token, format!("abc.{index}"));
    let alice = bench.store.auth.caller(&given.token).unwrap();
    assert_eq!(
        (alice.user.as_str(), alice.revision),
        ("alice", given.revision)
    );
    let records: Vec<_> = bench.store.auth.records().collect();
    let hash = bench.store.hash().unwrap();
    bench.store.flush().unwrap();
    drop(bench);
    let mut bench = Bench::open(folder.path());
    assert!(bench.store.auth.is_enabled());
    assert_eq!(bench.store.auth.records().collect::<Vec<_>>(), records);
    assert_eq!(bench.store.hash().unwrap(), hash);
    assert_eq!(bench.store.auth.caller(&given.token), None);
    assert_eq!(bench.as_alice(Command::Put(put_request("b"))), Ok(()));
    let denied = Err(StoreError::PermissionDenied);
    assert_eq!(bench.as_alice(Command::Put(put_request("a"))), denied);
    bench.act(delete_user("alice")).unwrap();
    bench.store.flush().unwrap();
    drop(bench);
    let bench = Bench::open(folder.path());
    assert_eq!(bench.store.auth.users().collect::<Vec<_>>(), [ROOT]);
}

#[test]
fn a_user_without_password_is_never_let_in_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_alice(folder.path());
    let request = AuthUserAddRequest {
        name: "robot".into(),
        options: Some(UserAddOptions { no_password: true }),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    };
    bench.act(Action::UserAdd(request)).unwrap();
    let changed = AuthUserChangePasswordRequest {
        name: "robot".into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    };
    bench.act(Action::UserChangePassword(changed)).unwrap();
    assert!(bench.store.auth.user("robot").unwrap().password.is_empty());
    let asked = bench.store.auth.password("robot");
    assert_eq!(asked, Err(StoreError::NoPasswordUser));
    assert_eq!(bench.store.auth.password("x"), Err(StoreError::AuthFailed));
    let action = Action::Authenticate(Authenticate {
        name: "robot".into(),
        token_prefix: "abc".into(),
    });
    let given = bench.send(Command::Auth(action.into()), None);
    assert_eq!(given, Err(StoreError::AuthFailed));
}
