//! Who watches: each asks some member for what follows what it has, takes what comes in order, and goes to another
//! member when its stream ends. It must see every event of its range once, in order, and none that it may not.

use bytes::Bytes;
use kvstore::mvcc::KeyRange;
use kvstore::pb::etcd::event::EventType;
use kvstore::pb::etcd::watch_create_request::FilterType;
use kvstore::pb::etcd::{Event as Change, WatchCreateRequest};
use kvstore::watch::Batch;
use prost::Message;

use super::session::{Session, Told};
use super::users::{ANN, ROOT};
use super::world::{Event, World};

/// Streams, by number, are of one client each, one after the other.
struct Stream {
    member: u64,
    boot: u64,
    serial: u64,
    /// When the last of its words comes.
    busy_until: u64,
}

pub struct Watch {
    request: WatchCreateRequest,
    range: KeyRange,
    user: &'static str,
    stream: Option<Stream>,
    serial: u64,
    /// All up to here was seen; None before the first stream, which may begin anywhere.
    seen: Option<i64>,
    /// The last stream was denied.
    denied: bool,
}

fn watch(key: &'static str, end: &'static str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        ..WatchCreateRequest::default()
    }
}

impl World {
    pub fn begin_watches(&mut self) {
        let wanted = [
            (ROOT, "\0", "\0"),
            (ROOT, "w00", "w99"),
            (ROOT, "w03", ""),
            (ROOT, "l", "m"),
            (ANN, "w00", "w99"),
            (ANN, "w02", ""),
            (ANN, "r", "s"),
        ];
        for (number, (user, key, end)) in wanted.into_iter().enumerate() {
            let mut request = watch(key, end);
            request.prev_kv = self.rng.percent(50);
            if self.rng.percent(20) {
                let filters = [FilterType::Noput, FilterType::Nodelete];
                request.filters = vec![self.rng.pick(&filters).unwrap_or_default().into()];
            }
            let range = KeyRange::new(&request.key, &request.range_end);
            self.watches.push(Watch {
                request,
                range,
                user,
                stream: None,
                serial: 0,
                seen: None,
                denied: false,
            });
            let delay = 1 + self.rng.below(3_000);
            self.later(delay, Event::Connect(number));
        }
    }

    /// A client asks a member for a stream, or has one already.
    pub fn connect(&mut self, client: usize) {
        let pause = 1 + self.rng.below(400);
        self.later(pause, Event::Connect(client));
        let watch = &self.watches[client];
        if let Some(stream) = &watch.stream {
            let member = self.members.get(&stream.member);
            let lives = member.is_some_and(|m| m.running.is_some() && m.boot == stream.boot);
            // Now and then it goes by itself, and what was on the way is lost.
            if lives && (self.calm_since.is_some() || !self.rng.percent(6)) {
                return;
            }
            self.leave(client);
        }
        let Some(id) = self.anyone() else { return };
        self.summary.operations += 1;
        self.summary.reconnects += 1;
        let watch = &mut self.watches[client];
        watch.serial += 1;
        watch.request.start_revision = watch.seen.map_or(0, |seen| seen + 1);
        let serial = watch.serial;
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let boot = member.boot;
        let Some(running) = &mut member.running else {
            return;
        };
        let state = &mut running.state;
        let (request, user) = (&watch.request, Some(watch.user));
        let session = Session::create(state, (client, serial), user, request);
        watch.denied = session.is_none();
        self.summary.watches_denied += u64::from(watch.denied);
        let Some(session) = session else { return };
        let told = Told::Created(state.store.revision());
        running.sessions.push(session);
        watch.stream = Some(Stream {
            member: id,
            boot,
            serial,
            busy_until: self.now,
        });
        self.tell(client, told);
    }

    fn leave(&mut self, client: usize) {
        let Some(stream) = self.watches[client].stream.take() else {
            return;
        };
        let member = self
            .members
            .get_mut(&stream.member)
            .filter(|m| m.boot == stream.boot);
        let Some(running) = member.and_then(|m| m.running.as_mut()) else {
            return;
        };
        let mut sessions = running.sessions.iter();
        let place = sessions.position(|s| s.client == client && s.serial == stream.serial);
        if let Some(place) = place {
            running.sessions.swap_remove(place).end(&mut running.state);
        }
    }

    /// Words on a stream come in order.
    fn tell(&mut self, client: usize, told: Told) {
        let delay = self.rng.delay(5, 5, 200);
        let Some(stream) = &mut self.watches[client].stream else {
            return;
        };
        let at = stream.busy_until.max(self.now + delay);
        stream.busy_until = at;
        let (serial, delay) = (stream.serial, at - self.now);
        self.later(
            delay,
            Event::Told {
                client,
                serial,
                told,
            },
        );
    }

    /// What a member's streams have to tell; slow ones some other time.
    pub fn tell_watchers(&mut self, id: u64) {
        let Some(running) = self.members.get_mut(&id).and_then(|m| m.running.as_mut()) else {
            return;
        };
        let users = self.truth.users_at(running.state.store.applied().0);
        let (mut all, mut open) = (Vec::new(), Vec::new());
        for mut session in std::mem::take(&mut running.sessions) {
            if self.rng.percent(30) {
                open.push(session);
                continue;
            }
            let told = session.deliver(&mut running.state, self.rng.percent(4));
            let shows = |told: &Told| matches!(told, Told::Events(_));
            if told.iter().any(shows) {
                let watch = &self.watches[session.client];
                assert!(
                    users.may_watch(Some(watch.user), &session.key, &session.end),
                    "member {id} shows {} what it may not read: {told:?}",
                    watch.user
                );
            }
            let ends =
                |told: &Told| matches!(told, Told::Denied | Told::Closed | Told::Compacted(_));
            let client = session.client;
            if !told.iter().any(ends) {
                open.push(session);
            }
            all.extend(told.into_iter().map(|told| (client, told)));
        }
        running.sessions = open;
        for (client, told) in all {
            self.tell(client, told);
        }
    }

    /// A client hears what its stream says.
    pub fn hear(&mut self, client: usize, serial: u64, told: Told) {
        let watch = &mut self.watches[client];
        if watch
            .stream
            .as_ref()
            .is_none_or(|stream| stream.serial != serial)
        {
            return;
        }
        match told {
            Told::Created(revision) => {
                watch.seen.get_or_insert(revision);
            }
            Told::Denied | Told::Closed => {
                watch.denied = matches!(told, Told::Denied);
                watch.stream = None;
                self.summary.watches_denied += u64::from(watch.denied);
            }
            Told::Events(batches) => {
                for batch in batches {
                    self.see(client, &batch);
                }
            }
            Told::Progress(revision) => self.see_nothing_until(client, revision),
            Told::Compacted(revision) => {
                let next = watch.seen.unwrap_or(0) + 1;
                let compacted = self.truth.model.compacted;
                assert!(
                    next < revision && revision <= compacted,
                    "watch {client} from {next} on is told of a compaction to {revision}"
                );
                watch.seen = Some(revision - 1);
                watch.stream = None;
            }
        }
    }

    fn wanted(&self, client: usize, revision: i64) -> Vec<&Change> {
        let watch = &self.watches[client];
        let filtered = |kind: FilterType| watch.request.filters.contains(&kind.into());
        let (no_put, no_delete) = (filtered(FilterType::Noput), filtered(FilterType::Nodelete));
        let all = self.truth.model.events(revision).iter().filter(|event| {
            let gone = event.r#type == i32::from(EventType::Delete);
            let hidden = if gone { no_delete } else { no_put };
            let kv = event.kv.as_ref();
            !hidden && kv.is_some_and(|kv| watch.range.contains(&kv.key))
        });
        all.collect()
    }

    /// Nothing that this watch wants is between what it has seen and a revision.
    fn see_nothing_until(&mut self, client: usize, revision: i64) {
        let Some(seen) = self.watches[client].seen else {
            unreachable!("watch {client} is told of {revision} before it began");
        };
        for skipped in seen + 1..=revision {
            let missed = self.wanted(client, skipped);
            assert!(
                missed.is_empty(),
                "watch {client} has seen all up to {seen}, is told of {revision}, and missed {missed:?}"
            );
        }
        self.watches[client].seen = Some(seen.max(revision));
    }

    fn see(&mut self, client: usize, batch: &Batch) {
        let revision = batch.revision;
        self.see_nothing_until(client, revision - 1);
        let seen = self.watches[client].seen.unwrap_or(0);
        assert!(
            seen < revision,
            "watch {client} has seen {seen} and is told of {revision} again"
        );
        let wanted = self.wanted(client, revision);
        let prev_kv = self.watches[client].request.prev_kv;
        assert_eq!(
            wanted.len(),
            batch.events.len(),
            "events of {revision} for watch {client}"
        );
        for (wanted, told) in wanted.into_iter().zip(&batch.events) {
            let told = match Change::decode(told.clone()) {
                Ok(told) => told,
                Err(error) => panic!("watch {client} is told what is no event: {error}"),
            };
            let same = (wanted.r#type, &wanted.kv) == (told.r#type, &told.kv);
            // What was there before may be compacted by now.
            let prev = told.prev_kv.is_none() || prev_kv && told.prev_kv == wanted.prev_kv;
            assert!(
                same && prev,
                "watch {client} is told {told:?} in the place of {wanted:?}"
            );
        }
        self.summary.events_seen += batch.events.len() as u64;
        self.watches[client].seen = Some(revision);
    }

    /// In the end everybody has seen everything.
    pub fn check_watches_at_rest(&mut self) {
        let newest = self.truth.model.revision;
        for client in 0..self.watches.len() {
            if let Some(stream) = &self.watches[client].stream {
                let member = stream.member;
                let running = self.members.get(&member).and_then(|m| m.running.as_ref());
                let reached = running.map(|r| (r.state.store.revision(), r.consensus.status()));
                assert!(
                    reached.as_ref().is_some_and(|(revision, _)| *revision == newest),
                    "watch {client} is at member {member}, which did not come to {newest}: {reached:?}"
                );
                self.see_nothing_until(client, newest);
            } else {
                assert!(
                    self.watches[client].denied,
                    "watch {client} found no member"
                );
            }
        }
    }
}
