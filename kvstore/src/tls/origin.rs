//! Whether a peer comes from where its certificate says that it is, by etcd's rule: an address that it names, or one of
//! its host names, looked up both ways. A certificate without such names is good from everywhere.

use std::ffi::CStr;
use std::io::{Error, Result};
use std::net::IpAddr;

use super::certificate::Facts;

const NAME_BYTES: usize = 1025;

/// Says no with etcd's sentence.
pub(super) async fn check(facts: &Facts, from: IpAddr) -> Result<()> {
    let from = from.to_canonical();
    if facts.addresses.is_empty() && facts.hosts.is_empty() || facts.addresses.contains(&from) {
        return Ok(());
    }
    if facts.hosts.is_empty() {
        let named: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
        return Err(Error::other(format!(
            "x509: certificate is valid for {}, not {from}",
            named.join(", ")
        )));
    }
    if is_host(&facts.hosts, from).await {
        return Ok(());
    }
    Err(Error::other(format!(
        "tls: \"{from}\" does not match any of DNSNames {:?}",
        facts.hosts
    )))
}

async fn is_host(hosts: &[String], from: IpAddr) -> bool {
    let name = tokio::task::spawn_blocking(move || name_of(from)).await;
    if let Ok(Some(name)) = name {
        let fits = |host: &String| match host.strip_prefix('*') {
            Some(rest) => name.ends_with(rest),
            None => *host == name,
        };
        if hosts.iter().any(fits) {
            return true;
        }
    }
    for host in hosts.iter().filter(|host| !host.starts_with('*')) {
        if let Ok(mut found) = tokio::net::lookup_host((host.as_str(), 0)).await {
            if found.any(|address| address.ip().to_canonical() == from) {
                return true;
            }
        }
    }
    false
}

/// The host name of an address, as the system's resolver knows it. Blocks.
fn name_of(address: IpAddr) -> Option<String> {
    let mut name = [0; NAME_BYTES];
    // SAFETY: all zero is a valid address of any kind, and larger than both kinds that are written into it.
    let mut socket: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut socket;
    let length = match address {
        IpAddr::V4(four) => {
            let inner = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(four.octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger, and aligned for every kind of address.
            unsafe { place.cast::<libc::sockaddr_in>().write(inner) };
            size_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(six) => {
            let inner = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: six.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(inner) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    // SAFETY: the address is `length` bytes of `socket`, the buffer as long as it is said to be.
    let code = unsafe {
        libc::getnameinfo(
            place.cast(),
            libc::socklen_t::try_from(length).ok()?,
            name.as_mut_ptr(),
            NAME_BYTES as libc::socklen_t,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return None;
    }
    // SAFETY: a found name ends with a zero inside of the buffer.
    let text = unsafe { CStr::from_ptr(name.as_ptr()) };
    let text = text.to_str().ok()?;
    Some(text.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(addresses: &[&str], hosts: &[&str]) -> Facts {
        Facts {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
            ..Facts::default()
        }
    }

    #[tokio::test]
    async fn a_peer_is_let_in_from_where_its_certificate_says_that_it_is() {
        for (addresses, hosts, fits) in [
            (&[][..], &[][..], true),
            (&["127.0.0.1"], &[], true),
            (&["10.0.0.1"], &[], false),
            (&["10.0.0.1"], &["localhost"], true),
            (&[], &["localhost"], true),
            (&[], &["nobody.invalid"], false),
        ] {
            let found = check(&facts(addresses, hosts), "127.0.0.1".parse().unwrap()).await;
            assert_eq!(found.is_ok(), fits, "{addresses:?} {hosts:?}");
        }
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        assert!(check(&facts(&["127.0.0.1"], &[]), mapped).await.is_ok());
    }
}
