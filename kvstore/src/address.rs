//! Where somebody listens or is dialed, as a URL says it: `http://`, `https://`, `unix://` or `unixs://`.
//!
//! Not here: opening sockets (`listen`, `dial`).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::config::ConfigError;

fn wrong<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    Port { host: String, port: u16 },
    Socket(PathBuf),
}

/// What a URL of a member names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is spoken there.
    pub secure: bool,
    pub place: Place,
}

impl Address {
    /// Reads a URL; errors are etcd's sentences.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        let url = url.trim();
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        let place = match (scheme, rest.strip_prefix("//")) {
            ("http" | "https", Some(rest)) => port(url, rest)?,
            // `unix:/path`, `unix:///path`, and `unix://name` for a path from where the member was started.
            ("unix" | "unixs", rest_of_authority) => {
                let path = rest_of_authority.unwrap_or(rest);
                if path.trim_matches('/').is_empty() {
                    return wrong(format!("URL names no socket: {url}"));
                }
                Place::Socket(PathBuf::from(path))
            }
            _ => {
                return wrong(format!(
                    "URL scheme must be http, https, unix, or unixs: {url}"
                ))
            }
        };
        Ok(Self {
            secure: matches!(scheme, "https" | "unixs"),
            place,
        })
    }

    /// The host of a port; None for a socket.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Port { host, .. } => Some(host),
            Place::Socket(_) => None,
        }
    }
}

fn port(url: &str, rest: &str) -> Result<Place, ConfigError> {
    let rest = rest.trim_end_matches('/');
    if rest.contains('/') {
        return wrong(format!("URL must not contain a path: {url}"));
    }
    let parts = rest
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parts else {
        return wrong(format!(
            "URL address does not have the form \"host:port\": {url}"
        ));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Place::Port {
        host: host.to_owned(),
        port,
    })
}

/// The socket addresses that a host and a port stand for; `url` is what an error names.
pub fn resolve(url: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConfigError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host == "localhost" {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
    }
    match (host, port).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(e) => wrong(format!("the host of {url} can't be resolved: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_url_is_read() {
        let at = |host: &str, port| Place::Port {
            host: host.to_owned(),
            port,
        };
        for (url, secure, place) in [
            ("http://h:1", false, at("h", 1)),
            ("https://[::1]:2/", true, at("::1", 2)),
            (
                "unix:///run/x.sock",
                false,
                Place::Socket("/run/x.sock".into()),
            ),
            (
                "unix:/run/x.sock",
                false,
                Place::Socket("/run/x.sock".into()),
            ),
            ("unixs://near:0", true, Place::Socket("near:0".into())),
        ] {
            assert_eq!(Address::parse(url).unwrap(), Address { secure, place });
        }
    }

    #[test]
    fn a_wrong_url_is_named() {
        for (url, part) in [
            ("127.0.0.1:1", "scheme"),
            ("ftp://h:1", "scheme"),
            ("http://h", "host:port"),
            ("https://h:1/x", "path"),
            ("unix:///", "no socket"),
        ] {
            let text = Address::parse(url).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains(url), "{url}: {text}");
        }
    }
}
