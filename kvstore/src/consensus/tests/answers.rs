//! A follower's answers: each append has one, but for those that only say what is committed.

use raft::eraftpb::{self, Message};

use super::*;

fn follower() -> Consensus {
    let restored = Restored {
        hard_state: HardState {
            term: 1,
            vote: 0,
            commit: 1,
        },
        conf: ConfState {
            voters: vec![1, 2, 3],
            learners: Vec::new(),
        },
        applied: 1,
        start: (1, 1),
        entries: Vec::new(),
    };
    Consensus::new(2, restored, &options(1)).unwrap()
}

/// What the follower answers to an append of the leader of term 2: entries up to `last` after `index`.
fn appended(consensus: &mut Consensus, index: u64, last: u64, commit: u64) -> Vec<u64> {
    let mut message = Message {
        from: 1,
        to: 2,
        term: 2,
        index,
        log_term: if index == 1 { 1 } else { 2 },
        commit,
        ..Default::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    message.entries = (index + 1..=last)
        .map(|index| eraftpb::Entry {
            index,
            term: 2,
            ..Default::default()
        })
        .collect();
    consensus.step(&message.encode_to_vec()).unwrap();
    let sent = settle(consensus).into_iter().flat_map(|o| o.messages);
    sent.map(|m| Message::decode(&m.bytes[..]).unwrap())
        .map(|m| {
            assert_eq!(m.msg_type(), MessageType::MsgAppendResponse);
            assert!(!m.reject);
            m.index
        })
        .collect()
}

#[test]
fn news_of_a_commit_is_applied_and_not_answered() {
    let mut consensus = follower();
    assert_eq!(appended(&mut consensus, 1, 3, 1), [3]);
    assert_eq!(appended(&mut consensus, 3, 3, 2), [0u64; 0]);
    assert_eq!(appended(&mut consensus, 3, 3, 3), [0u64; 0]);
    assert_eq!(consensus.node.raft.raft_log.applied, 3);
    assert_eq!(appended(&mut consensus, 3, 4, 3), [4]);
}

#[test]
fn whoever_asks_without_news_is_answered_as_the_first_answer_may_be_lost() {
    let mut consensus = follower();
    assert_eq!(appended(&mut consensus, 1, 3, 1), [3]);
    assert_eq!(appended(&mut consensus, 3, 3, 3), [0u64; 0]);
    assert_eq!(appended(&mut consensus, 3, 3, 3), [3]);
}

#[test]
fn news_that_confirms_more_than_before_is_answered() {
    let mut consensus = follower();
    assert_eq!(appended(&mut consensus, 1, 3, 1), [3]);
    // The answer to 2 is less than what was confirmed, and tells a leader that fell back how far it is right.
    assert_eq!(appended(&mut consensus, 2, 2, 2), [2]);
    assert_eq!(appended(&mut consensus, 3, 3, 3), [3]);
}
