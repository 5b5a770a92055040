//! A leader against answers that come late, twice and out of order.

mod answers;
mod durable;
mod loss;

use raft::eraftpb::Message;

use super::*;

/// Of a member that draws from this seed.
fn options(seed: u64) -> Options {
    Options {
        election_ticks: 10,
        heartbeat_ticks: 1,
        seed,
        boot_nonce: seed,
    }
}

fn leader() -> Consensus {
    let conf = ConfState {
        voters: vec![1, 2, 3],
        learners: Vec::new(),
    };
    let hard_state = HardState {
        term: 1,
        vote: 0,
        commit: 1,
    };
    let restored = Restored {
        hard_state,
        conf,
        applied: 1,
        start: (1, 1),
        entries: Vec::new(),
    };
    let mut consensus = Consensus::new(1, restored, &options(1)).unwrap();
    consensus.campaign().unwrap();
    settle(&mut consensus);
    answer(
        &mut consensus,
        MessageType::MsgRequestPreVoteResponse,
        |m| m.term = 2,
    );
    answer(&mut consensus, MessageType::MsgRequestVoteResponse, |_| ());
    assert_eq!(consensus.status().role, Role::Leader);
    consensus
}

fn settle(consensus: &mut Consensus) -> Vec<Output> {
    let mut outputs = Vec::new();
    while let Some(output) = consensus.ready() {
        if let Some(append) = &output.append {
            consensus.on_persisted(append.number);
        }
        if let Some(last) = output.committed.last() {
            consensus.applied(last.index);
        }
        outputs.push(output);
    }
    outputs
}

fn answer(
    consensus: &mut Consensus,
    kind: MessageType,
    fill: impl Fn(&mut Message),
) -> Vec<Output> {
    let mut message = Message {
        from: 2,
        to: 1,
        term: consensus.status().term,
        ..Default::default()
    };
    message.set_msg_type(kind);
    fill(&mut message);
    consensus.step(&message.encode_to_vec()).unwrap();
    settle(consensus)
}

fn progress(consensus: &Consensus) -> PeerProgress {
    consensus
        .status()
        .progress
        .into_iter()
        .find(|p| p.id == 2)
        .unwrap()
}

#[test]
fn a_late_rejection_never_moves_next_behind_match() {
    let mut consensus = leader();
    for index in 3..=8u64 {
        consensus.propose(Bytes::from(vec![index as u8])).unwrap();
        settle(&mut consensus);
        answer(&mut consensus, MessageType::MsgAppendResponse, |m| {
            m.index = index
        });
    }
    assert_eq!(progress(&consensus).matched, 8);
    consensus.report_unreachable(2);
    for rejected in 0..=10 {
        for hint in 0..=10 {
            answer(&mut consensus, MessageType::MsgAppendResponse, |m| {
                (m.index, m.reject, m.reject_hint) = (rejected, true, hint);
            });
            let progress = progress(&consensus);
            assert!(
                progress.next > progress.matched,
                "rejected {rejected}, hint {hint}: {progress:?}"
            );
        }
    }
}

#[test]
fn an_append_names_the_position_before_its_entries_though_its_receiver_fell_back_meanwhile() {
    let mut consensus = leader();
    let answer_of = |consensus: &mut Consensus, from, index, reject| {
        let mut message = Message {
            from,
            to: 1,
            term: consensus.status().term,
            index,
            reject,
            reject_hint: 2,
            ..Default::default()
        };
        message.set_msg_type(MessageType::MsgAppendResponse);
        consensus.step(&message.encode_to_vec()).unwrap();
    };
    answer_of(&mut consensus, 2, 2, false);
    answer_of(&mut consensus, 3, 2, false);
    settle(&mut consensus);
    for _ in 3..=4 {
        consensus.propose(Bytes::from_static(b"x")).unwrap();
        settle(&mut consensus);
    }
    // One turn: 3 confirms, so that the commit is told to 2 by an append without entries; 2 has lost the earlier ones.
    answer_of(&mut consensus, 3, 4, false);
    answer_of(&mut consensus, 2, 3, true);
    let sent = settle(&mut consensus);
    let appends: Vec<Message> = sent
        .iter()
        .flat_map(|o| &o.messages)
        .map(|m| Message::decode(&m.bytes[..]).unwrap())
        .filter(|m| m.msg_type() == MessageType::MsgAppend && !m.entries.is_empty())
        .collect();
    assert!(!appends.is_empty());
    for append in appends {
        assert_eq!(append.entries[0].index, append.index + 1, "{append:?}");
    }
}

#[test]
fn a_leader_that_is_removed_leads_no_more() {
    let mut consensus = leader();
    let confirm = |consensus: &mut Consensus, index| {
        answer(consensus, MessageType::MsgAppendResponse, |m| {
            m.index = index
        })
    };
    confirm(&mut consensus, 2);
    consensus
        .propose_conf_change(RaftChange::Remove(1), Bytes::from_static(b"x"))
        .unwrap();
    consensus.propose(Bytes::from_static(b"y")).unwrap();
    settle(&mut consensus);
    let committed = confirm(&mut consensus, 3);
    let told: Vec<_> = committed.iter().flat_map(|o| &o.messages).collect();
    assert!(!told.is_empty(), "the others learn of the commit");
    consensus.apply_conf_change(RaftChange::Remove(1)).unwrap();
    confirm(&mut consensus, 4);
    assert_eq!(consensus.status().role, Role::Follower);
}

#[test]
fn a_leader_with_nothing_committed_in_its_term_makes_reads_wait() {
    let mut consensus = leader();
    consensus.read(77).unwrap();
    assert!(settle(&mut consensus)
        .iter()
        .all(|o| o.reads.is_empty() && o.messages.is_empty()));
    let after = answer(&mut consensus, MessageType::MsgAppendResponse, |m| {
        m.index = 2
    });
    let beats: Vec<_> = after
        .iter()
        .flat_map(|o| &o.messages)
        .map(|m| Message::decode(&m.bytes[..]).unwrap())
        .collect();
    let beat = beats
        .iter()
        .find(|m| m.msg_type() == MessageType::MsgHeartbeat)
        .unwrap();
    let context = beat.context.clone();
    let served = answer(&mut consensus, MessageType::MsgHeartbeatResponse, |m| {
        m.context = context.clone()
    });
    let reads: Vec<_> = served.into_iter().flat_map(|o| o.reads).collect();
    assert_eq!(reads, [(2, vec![77])]);
}

#[test]
fn what_entries_carry_says_how_many_of_them_are_forgotten() {
    let entry = |index, size| Entry {
        index,
        term: 1,
        data: vec![7; size].into(),
        ..Default::default()
    };
    let mut log = Log::new(Restored {
        hard_state: HardState::default(),
        conf: ConfState::default(),
        applied: 20,
        start: (10, 1),
        entries: (11..=20).map(|index| entry(index, 100)).collect(),
    });
    let own = storage::size(&storage::to_raft(entry(1, 0)));
    let small = own + 100;
    assert_eq!(log.fitting(10 * small), 10);
    assert_eq!(log.fitting(8 * small), 10);
    assert_eq!(log.fitting(8 * small - 1), 13);
    log.compact(13);
    assert_eq!(log.fitting(5 * small), 15);
    // A leader's entries replace those from 16 on.
    log.append(vec![storage::to_raft(entry(16, 1_000))]);
    let whole = 3 * own + 1_200;
    assert_eq!(log.fitting(whole * 4 / 5 + 1), 13);
    assert_eq!(log.fitting(whole * 4 / 5 - 1), 15);
    assert_eq!(log.fitting(0), 16);
}

#[test]
fn entries_that_come_while_none_are_taken_are_dropped_and_sent_again() {
    let mut consensus = leader();
    let bring = |m: &mut Message| m.entries = vec![Default::default()];
    let last = |consensus: &Consensus| consensus.status().last_index;
    let before = last(&consensus);
    consensus.hold_entries(true);
    answer(&mut consensus, MessageType::MsgPropose, bring);
    assert_eq!(last(&consensus), before);
    consensus.hold_entries(false);
    answer(&mut consensus, MessageType::MsgPropose, |m| {
        bring(m);
        m.term = 0;
    });
    assert_eq!(last(&consensus), before + 1);
}

#[test]
fn what_is_appended_in_one_turn_is_sent_in_messages_of_a_bounded_size() {
    let (count, size) = (40, 400 * 1024);
    let mut consensus = leader();
    answer(&mut consensus, MessageType::MsgAppendResponse, |m| {
        m.index = 2
    });
    for number in 0..count {
        consensus.propose(vec![number; size].into()).unwrap();
    }
    let sent = settle(&mut consensus).into_iter().flat_map(|o| o.messages);
    let messages: Vec<_> = sent.filter(|m| m.to == 2).collect();
    assert!(messages
        .iter()
        .all(|m| m.bytes.len() < MAX_MESSAGE_BYTES as usize + 1024));
    let mut last = (2, 2);
    for message in &messages {
        let message = Message::decode(&message.bytes[..]).unwrap();
        assert_eq!((message.index, message.log_term), last);
        for entry in &message.entries {
            assert_eq!(entry.index, last.0 + 1);
            last = (entry.index, entry.term);
        }
    }
    assert_eq!(last.0, 2 + u64::from(count));
}
