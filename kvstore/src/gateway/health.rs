//! Whether this member is well, at `/health`, and by the newer `/livez` and `/readyz`, each made of checks of its own.

use std::fmt::Write as _;

use http::{HeaderValue, Response, StatusCode};
use tonic::body::Body;
use tonic::Status;

use super::{reply, Figures, PLAIN};
use crate::alarm;
use crate::handle::Handle;
use crate::pb::etcd::AlarmType;

/// One thing that `/livez` or `/readyz` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    DataCorruption,
    LinearizableRead,
    NonLearner,
    SerializableRead,
}

const LIVE: &[Part] = &[Part::SerializableRead];
const READY: &[Part] = &[
    Part::DataCorruption,
    Part::LinearizableRead,
    Part::NonLearner,
    Part::SerializableRead,
];

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    Health,
    /// All of these but what the query excludes.
    All(&'static [Part]),
    One(Part),
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
            Self::SerializableRead => "serializable_read",
        }
    }

    async fn look(self, handle: &Handle) -> Result<(), String> {
        let told = |status: Status| status.message().to_owned();
        match self {
            Self::DataCorruption => {
                let figures = handle.figures();
                let corrupt = |a: &crate::pb::etcd::AlarmMember| a.alarm() == AlarmType::Corrupt;
                if figures.alarms.iter().any(corrupt) {
                    return Err("alarm activated: CORRUPT".into());
                }
                Ok(())
            }
            Self::NonLearner if handle.figures().is_learner => {
                Err("not supported for learner".into())
            }
            Self::NonLearner => Ok(()),
            Self::SerializableRead => handle
                .core()
                .and_then(|c| c.store().map(drop))
                .map_err(told),
            Self::LinearizableRead => handle.linearize().await.map_err(told),
        }
    }
}

/// Whether a query has this pair, or with `value` None this name.
fn given(query: &str, name: &str, value: Option<&str>) -> bool {
    query.split('&').any(|pair| {
        let (key, given) = pair.split_once('=').unwrap_or((pair, ""));
        key == name && value.is_none_or(|value| value == given)
    })
}

impl Check {
    /// The check at a path.
    pub fn at(path: &str) -> Option<Self> {
        let (root, part) = match path.get(1..)?.split_once('/') {
            Some((root, part)) => (root, Some(part)),
            None => (&path[1..], None),
        };
        let parts = match root {
            "health" if part.is_none() => return Some(Self::Health),
            "livez" => LIVE,
            "readyz" => READY,
            _ => return None,
        };
        match part {
            None => Some(Self::All(parts)),
            Some(name) => {
                let part = parts.iter().find(|part| part.name() == name)?;
                Some(Self::One(*part))
            }
        }
    }

    pub async fn answer(self, handle: &Handle, query: &str) -> Response<Body> {
        let parts: Vec<Part> = match self {
            Self::Health => return health(handle, query).await,
            Self::One(part) => vec![part],
            Self::All(parts) => {
                let excluded = |part: &&Part| given(query, "exclude", Some(part.name()));
                parts.iter().filter(|p| !excluded(p)).copied().collect()
            }
        };
        let (mut text, mut well) = (String::new(), true);
        for part in parts {
            // A String takes all that is written to it.
            let _ = match part.look(handle).await {
                Ok(()) => writeln!(text, "[+]{} ok", part.name()),
                Err(reason) => {
                    well = false;
                    writeln!(text, "[-]{} failed: {reason}", part.name())
                }
            };
        }
        let mut response = if well {
            let shown = if given(query, "verbose", None) {
                &*text
            } else {
                ""
            };
            reply(StatusCode::OK, PLAIN, format!("{shown}ok\n"))
        } else {
            reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{text}\n"))
        };
        let nosniff = HeaderValue::from_static("nosniff");
        let name = http::header::X_CONTENT_TYPE_OPTIONS;
        response.headers_mut().insert(name, nosniff);
        response
    }
}

async fn health(handle: &Handle, query: &str) -> Response<Body> {
    let figures = handle.figures();
    let mut reason = illness(query, &figures);
    // A learner can't ask the cluster here, and is not ill for that.
    let asks = !figures.is_learner && !given(query, "serializable", Some("true"));
    if reason.is_none() && asks {
        let read = handle.linearize().await;
        reason = read
            .err()
            .map(|status| format!("RANGE ERROR:{}", status.message()));
    }
    match reason {
        None => reply(
            StatusCode::OK,
            PLAIN,
            r#"{"health":"true","reason":""}"#.into(),
        ),
        Some(reason) => reply(
            StatusCode::SERVICE_UNAVAILABLE,
            PLAIN,
            format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"),
        ),
    }
}

/// Why this member is not healthy, in etcd's words: an alarm that the query does not exclude, or no leader.
fn illness(query: &str, figures: &Figures) -> Option<String> {
    let mut names = figures.alarms.iter().map(alarm::name);
    if let Some(name) = names.find(|name| !given(query, "exclude", Some(name))) {
        return Some(format!("ALARM {name}"));
    }
    let led = figures.has_leader || given(query, "serializable", Some("true"));
    (!led).then(|| "RAFT NO LEADER".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_checks() {
        assert!(matches!(Check::at("/health"), Some(Check::Health)));
        assert!(matches!(Check::at("/livez"), Some(Check::All(LIVE))));
        assert!(matches!(Check::at("/readyz"), Some(Check::All(READY))));
        let one = Check::at("/readyz/non_learner");
        assert!(matches!(one, Some(Check::One(Part::NonLearner))));
        for path in ["/livez/non_learner", "/health/x", "/readyz/", "/", "/x"] {
            assert!(Check::at(path).is_none(), "{path}");
        }
    }

    #[test]
    fn health_follows_the_leader_and_alarms() {
        let led = Figures {
            has_leader: true,
            ..Figures::default()
        };
        assert_eq!(illness("", &led), None);
        let none = Figures::default();
        assert_eq!(illness("", &none).unwrap(), "RAFT NO LEADER");
        assert_eq!(illness("serializable=true", &none), None);
        let full = Figures {
            alarms: vec![crate::pb::etcd::AlarmMember {
                member_id: 1,
                alarm: AlarmType::Nospace.into(),
            }],
            ..led
        };
        assert_eq!(illness("", &full).unwrap(), "ALARM NOSPACE");
        assert_eq!(illness("a=b&exclude=NOSPACE", &full), None);
    }
}
