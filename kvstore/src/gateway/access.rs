//! Who may ask by plain HTTP, where browsers are concerned: pages of which origins get to see the answers, and by which
//! names this host may be called, so that no page reaches it by a name of its own (DNS rebinding).
//!
//! Not here: users and certificates. gRPC is none of it: no browser speaks it.

use std::collections::BTreeSet;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use serde::Deserialize;
use tonic::body::Body;
use tracing::warn;

use super::{reply, PLAIN};
use crate::config::ConfigError;
use crate::listen::Inbound;
use crate::report::Pace;

const ANY: &str = "*";
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");
static REJECTED: Pace = Pace::new();

/// Etcd's `--cors` and `--host-whitelist`: `*`, or a list; an empty one stands for all.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub origins: Vec<String>,
    pub hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origins: vec![ANY.into()],
            hosts: vec![ANY.into()],
        }
    }
}

/// The settings, read; None stands for all.
#[derive(Debug)]
pub struct Access {
    origins: Option<BTreeSet<String>>,
    hosts: Option<BTreeSet<String>>,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// When an origin is none.
    pub fn access(&self) -> Result<Access, ConfigError> {
        let origins = if self.origins.is_empty() || self.origins == [ANY] {
            None
        } else {
            let read = self.origins.iter().map(|one| origin(one));
            Some(read.collect::<Result<_, _>>()?)
        };
        let all = self.hosts.is_empty() || self.hosts.iter().any(|host| host == ANY);
        Ok(Access {
            origins,
            hosts: (!all).then(|| self.hosts.iter().cloned().collect()),
        })
    }
}

/// An origin as browsers write it: a scheme, a host, and a port unless that is the usual one.
fn origin(text: &str) -> Result<String, ConfigError> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let scheme = scheme.to_lowercase();
    if !["http", "https"].contains(&scheme.as_str()) {
        return Err(ConfigError(format!(
            "--cors: URL scheme must be http or https: {text}"
        )));
    }
    if rest.is_empty() || rest.contains(['/', '?', '#', '@']) {
        return Err(ConfigError(format!(
            "--cors: an origin is a scheme, a host and perhaps a port, without a path: {text}"
        )));
    }
    Ok(format!("{scheme}://{rest}"))
}

impl Access {
    /// The answer to a request that calls this host by a name that it has not.
    pub fn misdirected(&self, request: &Request<Inbound>) -> Option<Response<Body>> {
        let known = self.hosts.as_ref()?;
        let given = request.headers().get(header::HOST);
        let given = given.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let asked = request.uri().authority().map(ToString::to_string);
        let asked = asked.or(given).unwrap_or_default();
        let host = host_name(&asked);
        if known.contains(host) {
            return None;
        }
        if let Some(left_out) = REJECTED.turn() {
            warn!(
                host,
                left_out = (left_out > 0).then_some(left_out),
                "rejecting HTTP request to prevent DNS rebinding attacks"
            );
        }
        let mut response = reply(StatusCode::MISDIRECTED_REQUEST, PLAIN, advice(host));
        let nosniff = HeaderValue::from_static("nosniff");
        let name = header::X_CONTENT_TYPE_OPTIONS;
        response.headers_mut().insert(name, nosniff);
        Some(response)
    }

    /// The origin whose pages may see the answer to a request with these headers.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let Some(known) = &self.origins else {
            return Some(HeaderValue::from_static(ANY));
        };
        let given = headers.get(header::ORIGIN)?;
        given
            .to_str()
            .is_ok_and(|origin| known.contains(origin))
            .then(|| given.clone())
    }
}

/// Lets pages of `origin` see an answer.
pub fn show_to(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
}

/// The host of `host:port`, as Go splits them: what has another form is a host as it is.
fn host_name(text: &str) -> &str {
    let Some((host, _)) = text.rsplit_once(':') else {
        return text;
    };
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']'),
        None => (!host.contains(':')).then_some(host),
    };
    bare.filter(|host| !host.contains(['[', ']']))
        .unwrap_or(text)
}

/// Etcd's words.
fn advice(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_from_its_port_as_go_does() {
        for (text, host) in [
            ("h", "h"),
            ("h:80", "h"),
            ("h:", "h"),
            (":80", ""),
            ("", ""),
            ("[::1]:80", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("h:::", "h:::"),
            ("[h:80", "[h:80"),
            ("h]:80", "h]:80"),
            ("[[h]]:80", "[[h]]:80"),
        ] {
            assert_eq!(host_name(text), host, "{text}");
        }
    }

    fn of(origins: &[&str]) -> Result<Access, String> {
        let settings = Settings {
            origins: origins.iter().map(|one| (*one).to_owned()).collect(),
            ..Settings::default()
        };
        settings.access().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for wrong in [
            "a.example",
            "*.example",
            "ftp://a",
            "http://",
            "http://a/",
            "http://u@a",
        ] {
            assert!(of(&[wrong]).unwrap_err().contains(wrong));
        }
        assert!(of(&["*", "http://a:1"]).is_err());
        assert!(of(&[]).unwrap().origins.is_none());
    }

    #[test]
    fn an_origin_is_the_one_that_a_browser_tells() {
        let access = of(&["HTTP://a.example", "https://b.example:8443"]).unwrap();
        let seen = |origin: &'static str| {
            let told = HeaderValue::from_static(origin);
            let headers = HeaderMap::from_iter([(header::ORIGIN, told)]);
            access.origin(&headers).is_some()
        };
        assert!(seen("http://a.example") && seen("https://b.example:8443"));
        assert!(!seen("http://a.example:80") && !seen("https://a.example") && !seen("null"));
        assert!(access.origin(&HeaderMap::new()).is_none());
    }
}
