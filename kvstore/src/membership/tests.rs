//! What may change in a cluster, and what not.

use super::*;

fn three() -> Membership {
    let founders = ["a", "b", "c"]
        .map(|n| (n.to_owned(), vec![format!("http://{n}:1")]))
        .into();
    Membership::found(&founders, "t")
}

fn member(id: u64, learner: bool) -> Member {
    Member {
        id,
        peer_urls: vec![format!("http://x:{id}")],
        learner,
        ..Member::default()
    }
}

#[test]
fn founders_agree_and_a_token_sets_clusters_apart() {
    assert_eq!(three(), three());
    let founders = [("a".to_owned(), vec!["http://a:1".to_owned()])].into();
    assert_ne!(
        Membership::found(&founders, "x").cluster_id,
        Membership::found(&founders, "y").cluster_id
    );
}

#[test]
fn a_removed_id_never_comes_back() {
    let mut all = three();
    let id = all.find(&["http://a:1".to_owned()]).unwrap();
    let member = all.members[&id].clone();
    all.apply(&Change::Remove { id });
    assert_eq!(
        all.check(&Change::Add(member)),
        Err(StoreError::MemberExists)
    );
    assert_eq!(
        all.check(&Change::Remove { id }),
        Err(StoreError::MemberNotFound)
    );
}

#[test]
fn a_quorum_of_started_members_must_stay() {
    let remove = |id| Change::Remove { id };
    // (voters that have started, voters that have not, the change, whether it may be)
    let cases = [
        (1, 0, Change::Add(member(9, false)), true),
        (1, 1, Change::Add(member(9, false)), false),
        (1, 1, Change::Add(member(9, true)), true),
        (2, 0, Change::Add(member(9, false)), true),
        (2, 1, Change::Add(member(9, false)), false),
        (3, 0, Change::Add(member(9, false)), true),
        (1, 1, remove(1), false),
        (1, 1, remove(2), true),
        (2, 1, remove(1), false),
        (2, 1, remove(3), true),
        (3, 0, remove(1), true),
        (1, 0, remove(1), false),
        (1, 1, Change::Promote { id: 8 }, true),
        (1, 2, Change::Promote { id: 8 }, false),
    ];
    for (started, not, change, may) in cases {
        let mut all = Membership::default();
        for id in 1..=started + not {
            let mut one = member(id, false);
            one.name = if id <= started {
                format!("m{id}")
            } else {
                String::new()
            };
            all.apply(&Change::Add(one));
        }
        all.apply(&Change::Add(member(8, true)));
        let verdict = all.check_started(&change);
        assert_eq!(verdict.is_ok(), may, "{started} {not} {change:?}");
    }
}

#[test]
fn a_voter_goes_only_when_a_connected_quorum_stays() {
    let all = three();
    let ids: Vec<u64> = all.voters().collect();
    let but_first = |id: u64| (id != ids[0]).then_some(Duration::ZERO);
    let fresh = |_| Some(Duration::ZERO);
    let remove = |id| Change::Remove { id };
    assert_eq!(all.check_connected(&remove(ids[1]), fresh), Ok(()));
    assert_eq!(
        all.check_connected(&remove(ids[1]), but_first),
        Err(StoreError::Unhealthy)
    );
    assert_eq!(all.check_connected(&remove(ids[0]), but_first), Ok(()));
}

#[test]
fn a_member_comes_only_where_enough_voters_are_connected() {
    // Voters that are connected, for seconds, this one included; whether a voter may come, and a learner.
    let cases: [(&[Option<u64>], bool, bool); 8] = [
        (&[Some(99)], true, true),
        (&[Some(99), None], false, false),
        (&[Some(99), Some(4)], false, true),
        (&[Some(99), Some(5)], true, true),
        (&[Some(99), Some(5), None], false, false),
        (&[Some(99), Some(5), Some(5)], true, true),
        (&[Some(99), Some(5), Some(5), None], true, true),
        (&[Some(99), Some(5), None, None], false, false),
    ];
    for (connected, voter, learner) in cases {
        let mut all = Membership::default();
        for id in 0..connected.len() as u64 {
            all.apply(&Change::Add(member(id, false)));
        }
        for (learner, may) in [(false, voter), (true, learner)] {
            let since = |id: u64| connected[id as usize].map(Duration::from_secs);
            let verdict = all.check_connected(&Change::Add(member(9, learner)), since);
            assert_eq!(verdict.is_ok(), may, "{connected:?} {learner}");
        }
    }
}

#[test]
fn learners_are_promoted_one_at_a_time() {
    let mut all = three();
    let learner = |id, url: &str| Member {
        id,
        peer_urls: vec![url.into()],
        learner: true,
        ..Member::default()
    };
    all.apply(&Change::Add(learner(7, "http://d:1")));
    assert_eq!(
        all.check(&Change::Add(learner(8, "http://e:1"))),
        Err(StoreError::TooManyLearners)
    );
    assert_eq!(all.conf_state().learners, [7]);
    all.apply(&Change::Promote { id: 7 });
    assert_eq!(
        all.check(&Change::Promote { id: 7 }),
        Err(StoreError::NotLearner)
    );
    assert_eq!(all.voters().count(), 4);
}

#[test]
fn a_log_version_is_known_when_everybody_who_ran_said_so() {
    let mut members = three();
    let newest = crate::command::VERSION;
    assert_eq!(members.log_version(), newest, "nobody has run");
    let ids: Vec<u64> = members.members.keys().copied().collect();
    for (id, known, all) in [
        (ids[0], newest, newest),
        (ids[1], 0, 1),
        (ids[1], newest, newest),
    ] {
        let member = members.members.get_mut(&id).unwrap();
        member.client_urls = vec!["http://x:1".to_owned()];
        member.log_version = known;
        assert_eq!(members.log_version(), all);
    }
}
