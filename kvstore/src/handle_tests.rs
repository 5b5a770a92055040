//! Requests against a reactor that takes none.

use bytes::Bytes;

use super::*;
use crate::command::Command;
use crate::listen::{bind, serve, Routes};
use crate::membership::Member;
use crate::pb::etcd::lease_server::LeaseServer;
use crate::pb::etcd::PutRequest;
use crate::rpc_data::{Door, LeaseService};

const MEBI: usize = 1 << 20;

/// This member, 1, and the queue to its reactor, for as long as the folder is there.
pub(crate) fn member(folder: &std::path::Path) -> (Handle, Inputs) {
    let core = Core {
        store: Some(Store::open(folder).unwrap()),
        hub: Hub::default(),
        streams: HashMap::new(),
        lessor: Lessor::new(1, None),
        membership: Membership::default(),
        overrides: HashMap::new(),
    };
    let facts = Facts {
        cluster_id: 1,
        member_id: 1,
        ..Facts::default()
    };
    let limits = Limits {
        max_txn_ops: 128,
        max_request_bytes: 3 * MEBI / 2,
        quota_bytes: u64::MAX,
        request_timeout: Duration::from_secs(600),
        strict_reconfig_check: true,
        progress_every: Duration::from_secs(600),
        bcrypt_cost: 4,
        times_calls: false,
    };
    Handle::new(core, facts, limits, Dialer::default())
}

#[tokio::test]
async fn writes_that_wait_are_bounded_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, queue) = member(folder.path());
    let put = |size: usize| {
        let handle = handle.clone();
        let value = Bytes::from(vec![7; size]);
        let request = PutRequest {
            key: "k".into(),
            value,
            ..Default::default()
        };
        tokio::spawn(async move { handle.write(Command::Put(request), None).await })
    };
    let mut waiting: Vec<_> = (0..100).map(|_| put(MEBI)).collect();
    let end = Instant::now() + Duration::from_secs(30);
    while !waiting.iter().any(|write| write.is_finished()) {
        assert!(Instant::now() < end, "all of them wait");
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    let (refused, kept): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|w| w.is_finished());
    assert_eq!(kept.len(), write::MAX_WAITING_BYTES / MEBI - 1);
    for write in refused {
        let status = write.await.unwrap().unwrap_err();
        assert_eq!(status.message(), "etcdserver: too many requests");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }
    assert_eq!(handle.facts().failed.load(Ordering::Relaxed), 37);
    let mut queue = queue;
    drop(queue.try_recv());
    let late = put(MEBI);
    tokio::task::yield_now().await;
    assert!(!late.is_finished(), "room was made");
}

#[tokio::test]
async fn leases_are_renewed_and_revoked_before_what_fills_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, mut queue) = member(folder.path());
    handle.led_by(1);
    let ask = |command| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.write(command, None).await })
    };
    let put = |size| {
        Command::Put(PutRequest {
            value: Bytes::from(vec![7; size]),
            ..Default::default()
        })
    };
    // One after the other, so that each waits, or is refused, before the next: the queue's end, then the bytes'.
    let mut refused = None;
    let mut kept = Vec::new();
    while refused.is_none() {
        let write = ask(put(4_096));
        tokio::task::yield_now().await;
        if write.is_finished() {
            refused = Some(write.await.unwrap().unwrap_err());
        } else {
            kept.push(write);
        }
    }
    assert_eq!(refused.unwrap().message(), "etcdserver: too many requests");
    let revoked = ask(Command::LeaseRevoke(7));
    let renewed = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.renew(7, false).await })
    };
    tokio::task::yield_now().await;
    assert!(!revoked.is_finished() && !renewed.is_finished());
    let first = queue.recv().await.unwrap();
    let command = Command::LeaseRevoke(7);
    assert!(matches!(first, Input::Write { command: c, .. } if c == command));
    assert!(matches!(
        queue.try_recv(),
        Some(Input::Read { renews: true, .. })
    ));
    assert!(matches!(
        queue.try_recv(),
        Some(Input::Write {
            command: Command::Put(_),
            ..
        })
    ));
}

#[tokio::test]
async fn a_renewal_leaves_a_leader_that_hangs_as_soon_as_another_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, mut queue) = member(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let (hung, mut unread) = member(elsewhere.path());
    hung.led_by(1);
    let socket = bind(&["http://127.0.0.1:0".to_owned()], None)
        .unwrap()
        .remove(0);
    let url = format!("http://{}", socket.local_addr().unwrap());
    let routes = Routes::new(|_| http::Response::default())
        .with(LeaseServer::new(LeaseService(hung.clone(), Door::Peers)));
    let (_open, open) = watch::channel(false);
    tokio::spawn(serve(socket, routes, open));
    {
        let mut core = handle.core().unwrap();
        core.overrides.insert(2, vec![url]);
        core.lessor.granted(7, 60, handle.now_ms());
    }
    handle.led_by(2);
    let renewal = {
        let handle = handle.clone();
        tokio::spawn(async move { (handle.renew(7, false).await, handle.renew(8, false).await) })
    };
    let _asked = unread.recv().await.unwrap();
    assert!(!renewal.is_finished());
    handle.led_by(0);
    handle.led_by(1);
    let confirm = async {
        while let Some(input) = queue.recv().await {
            let Input::Read { reply, .. } = input else {
                continue;
            };
            reply.send(Ok(())).unwrap();
        }
    };
    let answers = tokio::select! {
        answers = tokio::time::timeout(Duration::from_secs(30), renewal) => answers,
        () = confirm => unreachable!(),
    };
    let (known, lost) = answers.expect("it waits for the hung leader").unwrap();
    assert_eq!(known.unwrap(), 60);
    assert_eq!(lost.unwrap(), 0);
}

#[tokio::test]
async fn a_certificates_name_is_a_user_unless_there_is_a_token_or_a_gateway_between() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _queue) = member(folder.path());
    let by_name = Sender::with_name("alice", false);
    assert_eq!(
        handle.caller(&by_name).await.unwrap(),
        None,
        "nobody is asked for"
    );
    handle.facts().auth_enabled.store(true, Ordering::Relaxed);
    let caller = handle.caller(&by_name).await.unwrap().unwrap();
    assert_eq!((caller.user.as_str(), caller.revision), ("alice", 1));
    let by_gateway = Sender::with_name("alice", true);
    assert_eq!(handle.caller(&by_gateway).await.unwrap(), None);
    let refused = handle.require_user(&by_gateway).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: user name is empty");
    let stranger = Sender::with_token(Some("abc.0".into()));
    let refused = handle.caller(&stranger).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn a_command_that_a_member_may_not_know_is_not_proposed() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, mut queue) = member(folder.path());
    let old = Member {
        id: 2,
        client_urls: vec!["http://x:1".to_owned()],
        ..Member::default()
    };
    handle.core().unwrap().membership.members.insert(2, old);
    let command = Command::Auth(crate::auth::AuthCommand::default());
    let refused = handle.write(command, None).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: not capable");
    assert!(queue.try_recv().is_none());
}
