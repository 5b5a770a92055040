//! A follower that comes back without entries that it had confirmed, to the leader that it had confirmed them to.

use super::*;

/// A member 2 whose log ends there; all in the leader's term but for the first entry.
fn follower(last_index: u64) -> Consensus {
    let entry = |index| Entry {
        index,
        term: 2,
        ..Default::default()
    };
    let restored = Restored {
        hard_state: HardState {
            term: 2,
            vote: 1,
            commit: 1,
        },
        conf: ConfState {
            voters: vec![1, 2, 3],
            learners: Vec::new(),
        },
        applied: 1,
        start: (1, 1),
        entries: (2..=last_index).map(entry).collect(),
    };
    Consensus::new(2, restored, &options(2)).unwrap()
}

/// A leader with entries up to 8, all committed and confirmed by 2.
fn leader_of_eight() -> Consensus {
    let mut leader = leader();
    for index in 2..=8u64 {
        answer(&mut leader, MessageType::MsgAppendResponse, |m| {
            m.index = index
        });
        if index < 8 {
            leader.propose(Bytes::from_static(b"x")).unwrap();
            settle(&mut leader);
        }
    }
    assert_eq!(progress(&leader).matched, 8);
    leader
}

fn beat(leader: &mut Consensus) -> Vec<Outgoing> {
    leader.tick();
    let sent = settle(leader).into_iter().flat_map(|o| o.messages);
    sent.filter(|m| m.to == 2).collect()
}

/// Takes the messages in; what was lost and what is sent to 1.
fn hear(at: &mut Consensus, messages: &[Outgoing]) -> (Option<Loss>, Vec<Outgoing>) {
    for message in messages {
        at.step(&message.bytes).unwrap();
    }
    let (mut loss, mut sent) = (None, Vec::new());
    for output in settle(at) {
        loss = loss.or(output.loss);
        sent.extend(output.messages);
    }
    (loss, sent)
}

#[test]
fn it_takes_the_whole_state_and_follows_again() {
    for unreachable in [true, false] {
        let (mut leader, mut follower) = (leader_of_eight(), follower(5));
        if unreachable {
            leader.report_unreachable(2);
        }
        let (loss, asked) = hear(&mut follower, &beat(&mut leader));
        let expected = Loss {
            last_index: 5,
            confirmed: 8,
        };
        assert_eq!(loss, Some(expected));
        let (_, sent) = hear(&mut leader, &asked);
        let state: Vec<_> = sent.into_iter().filter(|m| m.snapshot.is_some()).collect();
        assert_eq!(state.len(), 1);
        assert_eq!(hear(&mut follower, &state).0, None);
        leader.report_snapshot(2, true);
        leader.propose(Bytes::from_static(b"y")).unwrap();
        settle(&mut leader);
        for _ in 0..2 {
            let mut sent = beat(&mut leader);
            while !sent.is_empty() {
                let (loss, answers) = hear(&mut follower, &sent);
                assert_eq!(loss, None);
                let (_, all) = hear(&mut leader, &answers);
                sent = all.into_iter().filter(|m| m.to == 2).collect();
            }
        }
        assert_eq!(follower.status().applied, 9);
        assert_eq!(progress(&leader).matched, 9);
    }
}

#[test]
fn until_then_it_does_not_stand_and_votes_only_for_who_has_what_it_lost() {
    let (mut leader, mut follower) = (leader_of_eight(), follower(5));
    hear(&mut follower, &beat(&mut leader));
    for _ in 0..100 {
        follower.tick();
    }
    assert_eq!(follower.status().role, Role::Follower);
    let mut votes = |kind, index, log_term| {
        let mut message = Message {
            from: 3,
            to: 2,
            term: 3,
            index,
            log_term,
            ..Default::default()
        };
        message.set_msg_type(kind);
        follower.step(&message.encode_to_vec()).unwrap();
        let sent = settle(&mut follower).into_iter().flat_map(|o| o.messages);
        sent.filter(|m| m.to == 3).count()
    };
    for kind in [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote] {
        assert_eq!(votes(kind, 7, 2), 0, "it may lack entry 8");
        assert_eq!(votes(kind, 8, 2), 1);
    }
}

#[test]
fn a_heartbeat_of_an_earlier_term_says_nothing() {
    let mut follower = follower(5);
    let mut message = Message {
        from: 3,
        to: 2,
        term: 1,
        commit: 8,
        ..Default::default()
    };
    message.set_msg_type(MessageType::MsgHeartbeat);
    follower.step(&message.encode_to_vec()).unwrap();
    assert!(settle(&mut follower).iter().all(|o| o.loss.is_none()));
    assert!(!follower.has_lost());
}
