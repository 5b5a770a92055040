//! Tokens of each kind of key, and what is none. That etcd takes ours and we take etcd's is a conformance test.

use std::path::Path;
use std::process::Command;

use super::*;

const NOW: u64 = 1_800_000_000;

fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(folder);
    let done = command.output().unwrap();
    assert!(done.status.success(), "openssl {words}: {done:?}");
}

/// Key files of each kind, as OpenSSL writes them.
fn make_keys(folder: &Path) {
    for words in [
        "genrsa -traditional -out rsa.pem 2048",
        "rsa -in rsa.pem -pubout -out rsa.pub",
        "rsa -in rsa.pem -RSAPublicKey_out -out rsa1.pub",
        "pkcs8 -topk8 -nocrypt -in rsa.pem -out rsa8.pem",
        "ecparam -name prime256v1 -genkey -out ec.pem",
        "pkcs8 -topk8 -nocrypt -in ec.pem -out ec8.pem",
        "ec -in ec.pem -pubout -out ec.pub",
        "ecparam -name secp384r1 -genkey -noout -out ec384.pem",
        "genpkey -algorithm ed25519 -out ed.pem",
        "pkey -in ed.pem -pubout -out ed.pub",
    ] {
        openssl(folder, words);
    }
    std::fs::write(folder.join("secret"), "a secret of many letters").unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
}

fn open(folder: &Path, options: &str) -> Result<Jwt, String> {
    let pairs = options.split(',').filter_map(|part| part.split_once('='));
    let mut options: BTreeMap<String, String> = pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    for name in ["pub-key", "priv-key"] {
        if let Some(file) = options.get_mut(name) {
            *file = folder.join(&*file).display().to_string();
        }
    }
    Jwt::open(&options).map_err(|error| error.to_string())
}

#[test]
fn what_is_signed_can_be_checked_by_who_has_the_public_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_keys(folder);
    for (method, private, public) in [
        ("RS256", "rsa.pem", Some("rsa.pub")),
        ("RS384", "rsa8.pem", Some("rsa.pub")),
        ("RS512", "rsa.pem", Some("rsa1.pub")),
        ("PS256", "rsa.pem", Some("rsa.pub")),
        ("PS384", "rsa.pem", None),
        ("PS512", "rsa.pem", None),
        ("ES256", "ec.pem", Some("ec.pub")),
        ("ES256", "ec8.pem", Some("ec.pub")),
        ("ES384", "ec384.pem", None),
        ("EdDSA", "ed.pem", Some("ed.pub")),
        ("HS256", "secret", None),
        ("HS384", "secret", None),
        ("HS512", "secret", None),
    ] {
        let with = |part: String| format!("sign-method={method},ttl=10s{part}");
        let ours = open(folder, &with(format!(",priv-key={private}"))).unwrap();
        let token = ours.sign("alice", 7, NOW).unwrap();
        let claims = ours.verify(&token, NOW + 9).unwrap();
        let caller = claims.caller();
        assert_eq!(
            (caller.user.as_str(), caller.revision),
            ("alice", 7),
            "{method}"
        );
        assert_eq!(ours.verify(&token, NOW + 10), None, "{method}: too late");
        let (text, signature) = token.rsplit_once('.').unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"username":"root","revision":7}"#);
        let (header, _) = text.split_once('.').unwrap();
        let forged = format!("{header}.{claims}.{signature}");
        assert_eq!(ours.verify(&forged, NOW), None, "{method}");
        if let Some(public) = public {
            let theirs = open(folder, &with(format!(",pub-key={public}"))).unwrap();
            assert!(theirs.verify(&token, NOW).is_some(), "{method}");
            assert_eq!(theirs.sign("alice", 7, NOW), Err(StoreError::VerifyOnly));
        }
    }
}

#[test]
fn a_token_of_another_method_or_none_is_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_keys(folder);
    let rsa = open(folder, "sign-method=RS256,priv-key=rsa.pem").unwrap();
    // The public key, which everybody may know, as the secret of another method: the oldest attack on such tokens.
    let forger = open(folder, "sign-method=HS256,priv-key=rsa.pub").unwrap();
    let forged = forger.sign("root", 1, NOW).unwrap();
    assert_eq!(rsa.verify(&forged, NOW), None);
    let part = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    let claims = part(r#"{"username":"root","revision":1}"#);
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"RS256"}"#, "{}", "x"] {
        let unsigned = format!("{}.{claims}.", part(header));
        assert_eq!(rsa.verify(&unsigned, NOW), None, "{header}");
    }
    for text in ["", ".", "..", "a.b.c", "abc.7", "\u{e9}.x.y"] {
        assert_eq!(rsa.verify(text, NOW), None, "{text}");
    }
}

#[test]
fn keys_that_can_not_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_keys(folder);
    openssl(folder, "genrsa -out other.pem 2048");
    for (options, part) in [
        ("", "sign-method ''"),
        ("sign-method=ES512,priv-key=ec.pem", "sign-method 'ES512'"),
        ("sign-method=RS256", "missing key data"),
        ("sign-method=HS256", "missing key data"),
        ("sign-method=HS256,priv-key=empty", "missing key data"),
        ("sign-method=RS256,priv-key=none", "No such file"),
        ("sign-method=RS256,priv-key=ec.pem", "EC PRIVATE KEY"),
        ("sign-method=RS256,priv-key=ed.pem", "can't be used"),
        ("sign-method=ES256,priv-key=ec384.pem", "can't be used"),
        ("sign-method=RS256,pub-key=secret", "no PEM file"),
        ("sign-method=RS256,pub-key=rsa.pem", "no public key"),
        (
            "sign-method=RS256,priv-key=rsa.pem,pub-key=ec.pub",
            "don't match",
        ),
        (
            "sign-method=RS256,priv-key=other.pem,pub-key=rsa.pub",
            "don't match",
        ),
        ("sign-method=HS256,priv-key=secret,ttl=5", "ttl '5'"),
        ("sign-method=HS256,priv-key=secret,ttl=0s", "ttl '0s'"),
        ("sign-method=HS256,priv-key=secret,ttl=-5s", "ttl '-5s'"),
    ] {
        let error = open(folder, options).err().unwrap_or_default();
        assert!(error.contains(part), "{options}: {error}");
    }
}

#[test]
fn durations_are_those_of_go() {
    for (text, seconds) in [
        ("5m", 300.0),
        ("1h30m", 5_400.0),
        ("1.5s", 1.5),
        ("100ms", 0.1),
    ] {
        assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)));
    }
    for text in ["", "5", "m", "5x", "5m3", "--5s", "1..5s"] {
        assert_eq!(duration(text), None, "{text}");
    }
}
