//! Doors with TLS: a request knows the common name of its connection's certificate, where clients are known by those.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::address::Address;
use crate::dial;
use crate::tls::{Acceptor, Connector, Identity, Rules, Settings};

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// An authority, and a certificate of it for each name: `NAME.pem` and `NAME.key` beside `ca.pem`.
fn certificates(dir: &Path, names: &[&str]) {
    let mut params = named("ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let text = params.self_signed(&key).unwrap().pem();
    std::fs::write(dir.join("ca.pem"), text).unwrap();
    let issuer = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let signed = named(name).signed_by(&key, &issuer).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), signed.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// What a door with these settings says to `url`'s scheme: the name that requests of that connection carry.
async fn told(dir: &Path, client_cert_auth: bool, scheme: &str) -> String {
    let settings = Settings {
        cert_file: dir.join("server.pem"),
        key_file: dir.join("server.key"),
        trusted_ca_file: dir.join("ca.pem"),
        client_cert_auth,
        ..Settings::default()
    };
    let acceptor = Arc::new(Acceptor::for_clients(settings, Rules::default()).unwrap());
    let socket = dir.join(format!("{scheme}-{client_cert_auth}.sock"));
    let urls = ["unix", "unixs"].map(|scheme| format!("{scheme}://{}", socket.display()));
    let mut doors = bind(&urls, Some(&acceptor)).unwrap();
    assert_eq!(doors.len(), 1, "one socket for both");
    let routes = Routes::new(|request| {
        let name = request.extensions().get::<CommonName>();
        let name = name.map_or("nobody", |name| &name.0).to_owned();
        Response::new(Body::new(http_body_util::Full::from(name)))
    });
    let (_open, open) = watch::channel(false);
    tokio::spawn(serve(doors.remove(0), routes, open));
    let identity = Identity {
        cacert: Some(dir.join("ca.pem")),
        cert: Some(dir.join("alice.pem")),
        key: Some(dir.join("alice.key")),
        ..Identity::default()
    };
    let connector = Connector::for_client(identity).unwrap();
    let address = Address::parse(&format!("{scheme}://{}", socket.display())).unwrap();
    let plain = dial::connect(&address).await.unwrap();
    let mut stream = dial::secure(&address, Some(&connector), plain)
        .await
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
        .rsplit("\r\n\r\n")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn a_request_knows_whose_certificate_its_connection_has() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), &["server", "alice"]);
    assert_eq!(told(dir.path(), true, "unixs").await, "alice");
    assert_eq!(told(dir.path(), true, "unix").await, "nobody");
    assert_eq!(told(dir.path(), false, "unixs").await, "nobody");
}
