//! Settings that make sense, and those that name what does not.

use super::*;

#[test]
fn defaults_are_a_cluster_of_one_on_loopback() {
    let config = Config::parse("{}").unwrap();
    assert_eq!(
        config.initial_cluster,
        vec![("default".to_owned(), "http://localhost:2380".to_owned())]
    );
    assert_eq!(config.founders().unwrap().len(), 1);
    assert_eq!(config.election_ticks(), 10);
}

#[test]
fn each_bad_setting_names_itself() {
    for (json, part) in [
        (
            r#"{"heartbeat_interval": 300}"#,
            "--election-timeout[1000ms]",
        ),
        (
            r#"{"listen_client_urls": ["http://0.0.0.0:1"]}"#,
            "--insecure",
        ),
        (
            r#"{"listen_peer_urls": ["https://127.0.0.1:1"]}"#,
            "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url https://127.0.0.1:1 with",
        ),
        (
            r#"{"listen_client_urls": ["https://0.0.0.0:1"], "client_tls": {"auto": true}}"#,
            "--listen-client-urls https://0.0.0.0:1 lets in whoever reaches it",
        ),
        (
            r#"{"client_tls": {"auto": true}, "self_signed_cert_validity": 0}"#,
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (r#"{"tls_min_version": "TLS1.0"}"#, "unexpected TLS version"),
        (r#"{"peer_tls": {"key_file": "/k"}}"#, "KeyFile and CertFile must both"),
        (r#"{"listen_peer_urls": ["127.0.0.1:1"]}"#, "scheme"),
        (
            r#"{"initial_cluster_state": "old"}"#,
            "--initial-cluster-state",
        ),
        (r#"{"max_request_bytes": 60000000}"#, "--max-request-bytes"),
        (
            r#"{"metrics": "much"}"#,
            "--metrics is 'basic' or 'extensive', not 'much'",
        ),
        (r#"{"colour": 1}"#, "colour"),
    ] {
        let text = Config::parse(json).unwrap_err().to_string();
        assert!(text.contains(part), "{json}: {text}");
    }
    for good in [
        r#"{"listen_client_urls": ["http://0.0.0.0:1"], "insecure": true}"#,
        r#"{"listen_client_urls": ["https://0.0.0.0:1", "unix:///x.sock"],
            "client_tls": {"cert_file": "/c", "key_file": "/k", "trusted_ca_file": "/a"}}"#,
    ] {
        Config::parse(good).unwrap();
    }
}

#[test]
fn founders_must_agree_with_the_advertised_urls() {
    let config =
        Config::parse(r#"{"name": "a", "initial_cluster": [["b", "http://127.0.0.1:1"]]}"#)
            .unwrap();
    assert!(config
        .founders()
        .unwrap_err()
        .to_string()
        .contains("couldn't find local name"));
    let config =
        Config::parse(r#"{"name": "a", "initial_cluster": [["a", "http://127.0.0.1:1"]]}"#)
            .unwrap();
    assert!(config
        .founders()
        .unwrap_err()
        .to_string()
        .contains("--initial-advertise-peer-urls"));
}

#[test]
fn overrides_are_keyed_by_hexadecimal_ids() {
    let json = r#"{"peer_url_overrides": "{\"ff\": [\"http://127.0.0.1:7\"]}"}"#;
    let config = Config::parse(json).unwrap();
    assert_eq!(
        config.overrides().unwrap()[&255],
        vec!["http://127.0.0.1:7".to_owned()]
    );
}
