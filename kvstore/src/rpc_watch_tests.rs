//! A watch over the wire, with the test in the reactor's place.

use futures::StreamExt;

use super::*;
use crate::apply::Response as Did;
use crate::auth::{Action, Authenticate};
use crate::command::Command;
use crate::handle::tests::member;
use crate::listen::{bind, serve, Routes};
use crate::model::proposal;
use crate::pb::authpb::Permission;
use crate::pb::etcd::watch_client::WatchClient;
use crate::pb::etcd::*;

const MEBI: usize = 1 << 20;

/// What a turn of the reactor does for watchers.
fn turn(handle: &Handle) {
    let mut core = handle.core().unwrap();
    let core = &mut *core;
    core.hub.catch_up(core.store.as_ref().unwrap()).unwrap();
    for id in core.hub.ready() {
        core.streams[&id].ready.lock().unwrap().insert(id);
        core.streams[&id].notify.notify_one();
    }
}

/// The answers to a watch from revision 2 on, up to the last fragment.
async fn watched(handle: &Handle, url: &str, fragment: bool) -> Vec<WatchResponse> {
    let create = WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        start_revision: 2,
        fragment,
        ..Default::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let requests = futures::stream::iter([create]).chain(futures::stream::pending());
    let client = WatchClient::connect(url.to_owned()).await.unwrap();
    let mut client = client.max_decoding_message_size(usize::MAX);
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    turn(handle);
    let mut found: Vec<WatchResponse> = Vec::new();
    while found.last().is_none_or(|answer| answer.fragment) {
        found.push(answers.message().await.unwrap().unwrap());
    }
    found
}

#[tokio::test]
async fn a_large_revision_comes_in_fragments_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _queue) = member(folder.path());
    let put = |number: u8| RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: vec![b'k', number].into(),
            value: vec![number; MEBI].into(),
            ..Default::default()
        })),
    };
    let txn = TxnRequest {
        success: (0..5).map(put).collect(),
        ..Default::default()
    };
    if let Some(store) = &mut handle.core().unwrap().store {
        store.apply(1, 1, vec![proposal(Command::Txn(txn))]);
        store.take_events();
    }
    let socket = bind(&["http://127.0.0.1:0".to_owned()], None)
        .unwrap()
        .remove(0);
    let url = format!("http://{}", socket.local_addr().unwrap());
    let service = watch_server::WatchServer::new(WatchService(handle.clone()));
    let routes = Routes::new(|_| http::Response::default()).with(service);
    let (_open, open) = tokio::sync::watch::channel(false);
    tokio::spawn(serve(socket, routes, open));
    let whole = watched(&handle, &url, false).await;
    let parts = watched(&handle, &url, true).await;
    assert_eq!(whole.len(), 1);
    assert_eq!(parts.len(), 5, "a message holds 2 MiB");
    let joined: Vec<Bytes> = parts.into_iter().flat_map(|part| part.events).collect();
    assert_eq!(joined, whole[0].events);
}

/// Applies a put, and marks the watchers that have something for the stream.
fn put_large(handle: &Handle, stream: &WatchStream, index: u64) {
    let mut core = handle.core().unwrap();
    let store = core.store.as_mut().unwrap();
    let request = PutRequest {
        key: "k".into(),
        value: vec![7; MEBI].into(),
        ..Default::default()
    };
    let mut proposal = proposal(Command::Put(request));
    proposal.caller = store.auth().own_caller();
    store.apply(index, 1, vec![proposal]);
    for events in store.take_events() {
        core.hub.publish(&events);
    }
    stream.ready.lock().unwrap().extend(core.hub.ready());
}

#[tokio::test]
async fn nothing_is_sent_that_follows_a_snapshots_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _queue) = member(folder.path());
    let (outlet, out) = Outlet::new(usize::MAX);
    tokio::pin!(out);
    let stream: Arc<WatchStream> = Arc::default();
    let mut session = Session {
        handle: handle.clone(),
        stream: stream.clone(),
        outlet,
        watchers: HashMap::new(),
        by_watcher: HashMap::new(),
        next_id: 0,
        progress_asked: false,
        sender: Sender::default(),
        epoch: 0,
    };
    for _ in 0..3 {
        let create = WatchCreateRequest {
            key: "k".into(),
            ..Default::default()
        };
        session.create(create).await.unwrap();
        assert!(out.next().await.unwrap().unwrap().created);
    }
    put_large(&handle, &stream, 1);
    let mut delivering = Box::pin(session.deliver());
    let waits = futures::poll!(&mut delivering).is_pending();
    assert!(waits, "for room for the second");
    stream.closed.store(true, Ordering::Relaxed);
    put_large(&handle, &stream, 2);
    assert_eq!(out.next().await.unwrap().unwrap().events.len(), 1);
    let done = futures::poll!(&mut delivering).is_ready();
    assert!(done, "the third is sent as well");
    drop(delivering);
    assert_eq!(out.next().await.unwrap().unwrap().events.len(), 1);
    let more = futures::poll!(out.next()).is_ready();
    assert!(!more, "the client resumes from before the gap");
    let watchers: Vec<_> = session.by_watcher.keys().copied().collect();
    let progress = session.synced_at(watchers.into_iter()).unwrap();
    assert_eq!(progress, None);
}

/// Applies an action on users and roles in root's name; who has the token, of one who authenticated.
fn act(handle: &Handle, action: Action) -> Sender {
    let mut core = handle.core().unwrap();
    let store = core.store.as_mut().unwrap();
    let mut proposal = proposal(Command::Auth(action.into()));
    proposal.caller = store.auth().own_caller();
    let index = store.applied().0 + 1;
    let outcome = store.apply(index, 1, vec![proposal]).remove(0);
    handle.note_auth(store);
    match outcome.result.unwrap() {
        Did::Auth(given) => Sender::with_token(given.map(|given| given.token)),
        other => panic!("{other:?}"),
    }
}

/// Authentication is on, and alice reads `k`; she.
fn let_alice_in(handle: &Handle) -> Sender {
    let add = |name: &str| {
        Action::UserAdd(AuthUserAddRequest {
            name: name.into(),
            ..Default::default()
        })
    };
    let grant = |user: &str, role: &str| {
        Action::UserGrantRole(AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        })
    };
    for action in [
        add("root"),
        grant("root", "root"),
        add("alice"),
        Action::RoleAdd(AuthRoleAddRequest { name: "r".into() }),
        Action::RoleGrantPermission(AuthRoleGrantPermissionRequest {
            name: "r".into(),
            perm: Some(Permission {
                key: "k".into(),
                ..Default::default()
            }),
        }),
        grant("alice", "r"),
        Action::Enable(AuthEnableRequest {}),
    ] {
        act(handle, action);
    }
    act(
        handle,
        Action::Authenticate(Authenticate {
            name: "alice".into(),
            token_prefix: "abc".into(),
        }),
    )
}

#[tokio::test]
async fn what_was_not_sent_when_a_permission_went_is_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _queue) = member(folder.path());
    handle.facts().applied.store(99, Ordering::Relaxed);
    let (outlet, out) = Outlet::new(usize::MAX);
    tokio::pin!(out);
    let stream: Arc<WatchStream> = Arc::default();
    let mut session = Session {
        sender: let_alice_in(&handle),
        handle: handle.clone(),
        stream: stream.clone(),
        outlet,
        watchers: HashMap::new(),
        by_watcher: HashMap::new(),
        next_id: 0,
        progress_asked: false,
        epoch: 0,
    };
    for (key, refused) in [("k", false), ("l", true)] {
        let create = WatchCreateRequest {
            key: key.into(),
            ..Default::default()
        };
        session.create(create).await.unwrap();
        let answer = out.next().await.unwrap().unwrap();
        assert_eq!((answer.created, answer.canceled), (true, refused));
    }
    put_large(&handle, &stream, 20);
    session.deliver().await.unwrap();
    assert_eq!(out.next().await.unwrap().unwrap().events.len(), 1);
    put_large(&handle, &stream, 21);
    act(
        &handle,
        Action::RoleRevokePermission(AuthRoleRevokePermissionRequest {
            role: "r".into(),
            key: "k".into(),
            ..Default::default()
        }),
    );
    session.deliver().await.unwrap();
    let answer = out.next().await.unwrap().unwrap();
    assert_eq!((answer.canceled, answer.events.len()), (true, 0));
    assert_eq!(
        answer.cancel_reason,
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    );
    put_large(&handle, &stream, 30);
    session.deliver().await.unwrap();
    let more = futures::poll!(out.next()).is_ready();
    assert!(!more && session.watchers.is_empty());
}
