//! A leader against answers that come late, twice and out of order.

use raft::eraftpb::Message;

use super::*;

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
    let options = Options {
        election_ticks: 10,
        heartbeat_ticks: 1,
        seed: 1,
        boot_nonce: 1,
    };
    let mut consensus = Consensus::new(1, restored, &options).unwrap();
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
fn a_vote_is_answered_only_when_it_is_durable() {
    let conf = ConfState {
        voters: vec![1, 2, 3],
        learners: Vec::new(),
    };
    let restored = Restored {
        conf,
        applied: 1,
        start: (1, 1),
        ..Default::default()
    };
    let options = Options {
        election_ticks: 10,
        heartbeat_ticks: 1,
        seed: 1,
        boot_nonce: 1,
    };
    let mut consensus = Consensus::new(1, restored, &options).unwrap();
    let mut ask = Message {
        from: 2,
        to: 1,
        term: 5,
        index: 1,
        log_term: 1,
        ..Default::default()
    };
    ask.set_msg_type(MessageType::MsgRequestVote);
    consensus.step(&ask.encode_to_vec()).unwrap();
    let output = consensus.ready().unwrap();
    let append = output.append.unwrap();
    assert_eq!((append.hard_state.term, append.hard_state.vote), (5, 2));
    assert!(output.messages.is_empty() && consensus.ready().is_none());
    consensus.on_persisted(append.number);
    assert_eq!(consensus.ready().unwrap().messages.len(), 1);
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
    assert_eq!(log.fitting(1_000), 10);
    assert_eq!(log.fitting(800), 10);
    assert_eq!(log.fitting(799), 13);
    log.compact(13);
    assert_eq!(log.fitting(500), 15);
    // A leader's entries replace those from 16 on.
    log.append(vec![storage::to_raft(entry(16, 1_000))]);
    assert_eq!(log.fitting(960), 13);
    assert_eq!(log.fitting(959), 16);
    assert_eq!(log.fitting(0), 16);
}
