//! Certificates that a member makes for itself (`--auto-tls`, `--peer-auto-tls`). They hide what is said, and prove
//! nothing of who says it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use tracing::info;

use super::certificate::Facts;
use super::{files, TlsError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// One whose end is so near is made anew when the member starts.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where a certificate and its key lie.
pub(super) struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The pair in `dir`: the one that is there while it is good for these hosts, else a new one.
pub(super) fn pair(dir: &Path, hosts: &[String], years: u32) -> Result<Pair, TlsError> {
    let pair = Pair {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    if is_good(&pair, hosts) {
        return Ok(pair);
    }
    make(dir, &pair, hosts, years)
        .map_err(|error| TlsError(format!("{}: {error}", dir.display())))?;
    info!(
        path = %pair.cert.display(),
        years,
        "made a certificate of its own"
    );
    Ok(pair)
}

fn is_good(pair: &Pair, hosts: &[String]) -> bool {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return false;
    };
    let facts = files::chain(&pair.cert)
        .ok()
        .and_then(|chain| Facts::read(chain.first()?));
    files::key(&pair.key).is_ok()
        && facts.is_some_and(|facts| {
            facts.is_good_at(now)
                && facts.is_good_at(now + RENEW_BEFORE)
                && hosts.iter().all(|host| facts.is_for(host))
        })
}

type Failure = Box<dyn std::error::Error>;

fn make(dir: &Path, pair: &Pair, hosts: &[String], years: u32) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)?;
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * 365 * years).into();
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write(&pair.key, &key.serialize_pem(), 0o600)?;
    write(&pair.cert, &certificate.pem(), 0o644)?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    if draft.exists() {
        std::fs::remove_file(&draft)?;
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pair_is_kept_while_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = pair(dir.path(), &hosts, 1).unwrap();
        let text = std::fs::read(&first.cert).unwrap();
        let mode = std::fs::metadata(&first.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        pair(dir.path(), &hosts[..1], 1).unwrap();
        assert_eq!(std::fs::read(&first.cert).unwrap(), text);
        // Another host, or an end that is near, asks for another one.
        pair(dir.path(), &["10.1.2.3".to_owned()], 1).unwrap();
        let second = std::fs::read(&first.cert).unwrap();
        assert_ne!(second, text);
        std::fs::write(&first.key, "").unwrap();
        pair(dir.path(), &["10.1.2.3".to_owned()], 1).unwrap();
        assert_ne!(std::fs::read(&first.cert).unwrap(), second);
    }
}
