//! Nobody hears of a term or a vote that a crash would take back.

use super::*;
use crate::log::SnapshotMeta;

fn member(voters: &[u64], learners: &[u64]) -> Consensus {
    let restored = Restored {
        conf: ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
        },
        applied: 1,
        start: (1, 1),
        ..Default::default()
    };
    Consensus::new(1, restored, &options(1)).unwrap()
}

fn from_two(consensus: &mut Consensus, kind: MessageType, fill: impl Fn(&mut Message)) {
    let mut message = Message {
        from: 2,
        to: 1,
        term: 5,
        index: 1,
        log_term: 1,
        ..Default::default()
    };
    message.set_msg_type(kind);
    fill(&mut message);
    consensus.step(&message.encode_to_vec()).unwrap();
}

/// All that is due, with nothing reported durable: the last number for the disk, and what went out.
fn unsynced(consensus: &mut Consensus) -> (u64, Vec<MessageType>) {
    let (mut number, mut sent) = (0, Vec::new());
    while let Some(output) = consensus.ready() {
        number = output.append.map_or(number, |append| append.number);
        let kinds = output.messages.iter().map(|m| {
            let message = Message::decode(&m.bytes[..]).unwrap();
            message.msg_type()
        });
        sent.extend(kinds);
    }
    (number, sent)
}

#[test]
fn a_vote_is_answered_only_when_it_is_durable() {
    let mut consensus = member(&[1, 2, 3], &[]);
    from_two(&mut consensus, MessageType::MsgRequestVote, |_| ());
    let output = consensus.ready().unwrap();
    let append = output.append.unwrap();
    assert_eq!((append.hard_state.term, append.hard_state.vote), (5, 2));
    assert!(output.messages.is_empty() && consensus.ready().is_none());
    consensus.on_persisted(append.number);
    assert_eq!(
        unsynced(&mut consensus).1,
        [MessageType::MsgRequestVoteResponse]
    );
}

#[test]
fn a_write_is_passed_on_to_the_leader_though_the_disk_hangs() {
    let mut consensus = member(&[1, 2, 3], &[]);
    from_two(&mut consensus, MessageType::MsgHeartbeat, |_| ());
    assert_eq!(unsynced(&mut consensus).1, [], "the term is not durable");
    consensus.propose("w".into()).unwrap();
    assert_eq!(unsynced(&mut consensus).1, [MessageType::MsgPropose]);
}

/// What a leader sends in two election timeouts while its disk hangs, or is only slow, and others have or have not
/// what it wrote.
fn sent_while_unsynced(hangs: bool, others_have_it: bool) -> Vec<MessageType> {
    let mut consensus = leader();
    let term = consensus.status().term;
    let mut sent = Vec::new();
    for tick in 0..20 {
        // It is refused once leadership is on its way.
        let _ = consensus.propose(vec![tick].into());
        let (number, kinds) = unsynced(&mut consensus);
        sent.extend(kinds);
        let last = consensus.status().last_index;
        for from in [2, 3] {
            from_two(&mut consensus, MessageType::MsgAppendResponse, |m| {
                (m.from, m.term) = (from, term);
                m.index = if others_have_it { last } else { 2 };
            });
        }
        if !hangs && tick % 5 == 0 {
            consensus.on_persisted(number - 1);
        }
        consensus.tick();
    }
    sent
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_to_those_who_commit_without_it() {
    let hands_over = |sent: Vec<MessageType>| sent.contains(&MessageType::MsgTimeoutNow);
    assert!(hands_over(sent_while_unsynced(true, true)));
    assert!(!hands_over(sent_while_unsynced(false, true)), "it is slow");
    assert!(
        !hands_over(sent_while_unsynced(true, false)),
        "they are no better"
    );
}

#[test]
fn a_candidate_asks_for_votes_only_when_its_own_is_durable() {
    let mut consensus = member(&[1, 2, 3], &[]);
    consensus.campaign().unwrap();
    assert_eq!(
        unsynced(&mut consensus).1,
        [MessageType::MsgRequestPreVote; 2]
    );
    from_two(
        &mut consensus,
        MessageType::MsgRequestPreVoteResponse,
        |m| m.term = 1,
    );
    let (number, sent) = unsynced(&mut consensus);
    assert_eq!(sent, []);
    consensus.on_persisted(number);
    assert_eq!(unsynced(&mut consensus).1, [MessageType::MsgRequestVote; 2]);
    from_two(&mut consensus, MessageType::MsgRequestVoteResponse, |m| {
        m.term = 1
    });
    // Its term is durable; its entries go out while the disk writes them.
    assert_eq!(unsynced(&mut consensus).1, [MessageType::MsgAppend; 2]);
}

#[test]
fn a_lone_voter_tells_its_learner_nothing_of_a_term_that_is_not_durable() {
    let mut consensus = member(&[1], &[2]);
    consensus.campaign().unwrap();
    let (number, sent) = unsynced(&mut consensus);
    assert!(consensus.leads());
    assert_eq!(sent, []);
    consensus.propose(Bytes::from_static(b"x")).unwrap();
    consensus.tick();
    assert_eq!(unsynced(&mut consensus).1, []);
    consensus.on_persisted(number);
    let (_, sent) = unsynced(&mut consensus);
    assert!(sent.contains(&MessageType::MsgAppend), "{sent:?}");
    consensus.propose(Bytes::from_static(b"y")).unwrap();
    consensus.tick();
    let (_, sent) = unsynced(&mut consensus);
    assert!(sent.contains(&MessageType::MsgHeartbeat), "{sent:?}");
}

#[test]
fn a_voter_left_alone_stands_only_when_what_it_wrote_as_a_follower_is_durable() {
    let mut consensus = member(&[1], &[2]);
    from_two(&mut consensus, MessageType::MsgAppend, |m| {
        m.entries = vec![eraftpb::Entry {
            index: 2,
            term: 5,
            ..Default::default()
        }]
    });
    let (number, _) = unsynced(&mut consensus);
    from_two(&mut consensus, MessageType::MsgTimeoutNow, |_| ());
    for _ in 0..50 {
        consensus.tick();
        unsynced(&mut consensus);
    }
    assert_eq!(consensus.status().role, Role::Follower);
    consensus.on_persisted(number);
    for _ in 0..50 {
        consensus.tick();
        unsynced(&mut consensus);
    }
    assert!(consensus.leads());
}

#[test]
fn a_follower_stands_only_when_the_snapshot_that_it_took_is_durable() {
    let mut consensus = member(&[1, 2, 3], &[]);
    from_two(&mut consensus, MessageType::MsgSnapshot, |m| {
        m.snapshot = Some(storage::snapshot_of(&SnapshotMeta {
            index: 9,
            term: 5,
            conf: ConfState {
                voters: vec![1, 2, 3],
                learners: Vec::new(),
            },
        }));
    });
    let (number, _) = unsynced(&mut consensus);
    for _ in 0..50 {
        consensus.tick();
        unsynced(&mut consensus);
    }
    assert_eq!(consensus.status().role, Role::Follower);
    consensus.on_persisted(number);
    // Before any entry behind it came.
    for _ in 0..50 {
        consensus.tick();
        unsynced(&mut consensus);
    }
    assert_eq!(consensus.status().role, Role::PreCandidate);
    assert_eq!(consensus.status().applied, 9);
}
