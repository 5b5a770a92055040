//! A reactor on real parts, turned by hand, against another member's consensus.

use super::*;
use crate::budget::Budget;
use crate::command::{decode_batch, Command};
use crate::consensus::{Body, Options, Restored};
use crate::disk::FileDisk;
use crate::handle::tests::member;
use crate::log::ConfState;
use crate::pb::etcd::PutRequest;
use crate::peer::Dialer;
use crate::wal::{Identity, Wal};

fn consensus(id: u64) -> Consensus {
    let restored = Restored {
        conf: ConfState {
            voters: vec![1, 2],
            learners: Vec::new(),
        },
        applied: 1,
        start: (1, 1),
        ..Restored::default()
    };
    let options = Options {
        election_ticks: 10,
        heartbeat_ticks: 1,
        seed: 1,
        boot_nonce: 1,
    };
    Consensus::new(id, restored, &options).unwrap()
}

/// Member 1 on a folder.
fn reactor(folder: &std::path::Path) -> Reactor {
    let (handle, inputs) = member(&folder.join("state"));
    let identity = Identity {
        cluster: 1,
        member: 1,
    };
    let (wal, _) = Wal::open(FileDisk::new(&folder.join("wal")).unwrap(), identity).unwrap();
    let (_, synced) = mpsc::unbounded_channel();
    let (tell, events) = mpsc::channel(1);
    Reactor {
        consensus: consensus(1),
        disk: Appender::start(wal, |_| ()).unwrap(),
        synced,
        handle,
        inputs,
        events,
        peers: Peers::new(1, 1, Dialer::default(), tell),
        stop: watch::channel(false).1,
        doors: watch::channel(false).0,
        config: Config::default(),
        state_dir: folder.join("state"),
        waiting: Waiting::new(1),
        space: Space::open(folder, u64::MAX).unwrap(),
    }
}

/// Passes messages on until there are none; returns the commands that the second has committed.
fn converse(first: &mut Consensus, second: &mut Consensus) -> Vec<Command> {
    let mut committed = Vec::new();
    loop {
        let mut silent = true;
        for turn in 0..2 {
            let (one, other) = if turn == 0 {
                (&mut *first, &mut *second)
            } else {
                (&mut *second, &mut *first)
            };
            while let Some(output) = one.ready() {
                silent = false;
                output
                    .messages
                    .iter()
                    .for_each(|m| other.step(&m.bytes).unwrap());
                if let Some(append) = output.append {
                    one.on_persisted(append.number);
                }
                if let Some(last) = output.committed.last() {
                    one.applied(last.index);
                }
                for entry in output.committed {
                    if let (Body::Normal(batch), 1) = (entry.body, turn) {
                        let batch = decode_batch(batch).unwrap();
                        committed.extend(batch.into_iter().filter_map(|p| p.command));
                    }
                }
            }
        }
        if silent {
            return committed;
        }
    }
}

#[tokio::test]
async fn a_deposed_leader_hands_on_its_clients_writes_but_not_what_its_leases_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut deposed, mut successor) = (reactor(folder.path()), consensus(2));
    deposed.consensus.campaign().unwrap();
    converse(&mut deposed.consensus, &mut successor);
    assert!(deposed.consensus.leads());
    deposed.handle.core().unwrap().lessor.granted(7, 0, 0);
    deposed.expire().unwrap();
    let command = Command::Put(PutRequest {
        key: "k".into(),
        ..PutRequest::default()
    });
    let (reply, _answer) = tokio::sync::oneshot::channel();
    let write = Input::Write {
        caller: None,
        command: command.clone(),
        reply,
        share: Budget::new(1).take(1).unwrap(),
    };
    deposed.take(write).unwrap();
    assert_eq!(deposed.waiting.proposals.iter().count(), 2);
    deposed.consensus.transfer_leader(2);
    converse(&mut deposed.consensus, &mut successor);
    assert!(successor.leads());
    deposed.submit().unwrap();
    let committed = converse(&mut deposed.consensus, &mut successor);
    assert_eq!(committed, [command]);
}

/// A write whose answer nobody reads, but waits for.
fn write(command: Command) -> (Input, Answer) {
    let (reply, answer) = tokio::sync::oneshot::channel();
    let input = Input::Write {
        caller: None,
        command,
        reply,
        share: Budget::new(1).take(1).unwrap(),
    };
    (input, answer)
}

type Answer = tokio::sync::oneshot::Receiver<Result<(crate::apply::Response, i64), StoreError>>;

#[tokio::test]
async fn revocations_go_before_the_writes_that_a_reactor_has_no_more_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut reactor = reactor(folder.path());
    let put = Command::Put(PutRequest::default());
    let mut answers = Vec::new();
    for _ in 0..=MAX_WAITING_REQUESTS {
        let (input, answer) = write(put.clone());
        reactor.take(input).unwrap();
        answers.push(answer);
    }
    let last = answers.pop().unwrap().await.unwrap();
    assert_eq!(last, Err(StoreError::TooManyRequests));
    let (input, mut revoked) = write(Command::LeaseRevoke(7));
    reactor.take(input).unwrap();
    assert!(revoked.try_recv().is_err(), "it waits");
    let first = reactor.waiting.proposals.iter().next().unwrap();
    assert_eq!(first.command, Some(Command::LeaseRevoke(7)));
    let drained: Vec<_> = reactor
        .waiting
        .proposals
        .drain(2)
        .map(|p| p.command)
        .collect();
    assert_eq!(drained, [Some(Command::LeaseRevoke(7)), Some(put)]);
    assert_eq!(
        reactor.waiting.proposals.iter().count(),
        MAX_WAITING_REQUESTS - 1
    );
}

#[tokio::test]
async fn a_leader_notes_what_is_left_of_leases_once_all_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut reactor = reactor(folder.path());
    let handle = reactor.handle.clone();
    {
        let mut core = handle.core().unwrap();
        core.lessor = crate::lease::Lessor::new(1, Some(1));
        core.lessor.granted(7, 60, handle.now_ms());
        let old = crate::membership::Member {
            id: 2,
            client_urls: vec!["http://h:1".into()],
            log_version: 2,
            ..Default::default()
        };
        core.membership.members.insert(2, old);
    }
    std::thread::sleep(Duration::from_millis(1_100));
    reactor.expire().unwrap();
    assert!(reactor.waiting.proposals.is_empty());
    let now = handle.now_ms();
    assert!(!handle.core().unwrap().lessor.renew(7, now).unwrap().noted);
    handle.core().unwrap().membership.members.clear();
    std::thread::sleep(Duration::from_millis(1_100));
    reactor.expire().unwrap();
    let proposal = reactor.waiting.proposals.drain(1).next().unwrap();
    let Some(Command::LeaseCheckpoint(noted)) = &proposal.command else {
        panic!("{proposal:?}");
    };
    assert_eq!(noted.checkpoints.len(), 1);
    assert_eq!(noted.checkpoints[0].id, 7);
    assert!((1..60).contains(&noted.checkpoints[0].remaining_ttl));
    let now = handle.now_ms();
    assert!(handle.core().unwrap().lessor.renew(7, now).unwrap().noted);
}

#[tokio::test]
async fn a_member_is_told_again_what_the_program_before_did_not_note() {
    use futures::FutureExt;
    let folder = tempfile::tempdir().unwrap();
    let mut reactor = reactor(folder.path());
    let handle = reactor.handle.clone();
    for id in [1, 2] {
        let member = crate::membership::Member {
            id,
            client_urls: vec!["http://h:1".into()],
            ..Default::default()
        };
        handle.core().unwrap().membership.members.insert(id, member);
    }
    let mut index = 1;
    let mut says = |id, log_version| {
        index += 1;
        let attributes = crate::command::MemberAttributes {
            id,
            log_version,
            client_urls: vec!["http://h:1".into()],
            ..Default::default()
        };
        let command = Command::MemberAttributes(attributes);
        let said = vec![crate::model::proposal(command)];
        let mut core = handle.core().unwrap();
        reactor.apply_batch(&mut core, index, 1, said).unwrap();
        let known = core.membership.log_version();
        (
            known,
            handle.newcomers().notified().now_or_never().is_some(),
        )
    };
    // Its own word, an old program's, then that of the newer one, once and again.
    assert_eq!(says(1, 2), (1, false));
    assert_eq!(says(2, 0), (1, false));
    assert_eq!(says(2, 2), (2, true));
    assert_eq!(says(2, 2), (2, false));
}
