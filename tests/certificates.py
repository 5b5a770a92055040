"""An authority and its certificates for tests, made by the `openssl` program."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
HERE = ("localhost", "127.0.0.1")
SETTINGS = """
[ca]
default_ca = it
[it]
dir = {directory}
database = $dir/index.txt
new_certs_dir = $dir
serial = $dir/serial
crlnumber = $dir/crlnumber
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
unique_subject = no
copy_extensions = copy
crl_extensions = crl
[any]
commonName = supplied
[crl]
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"openssl {words[0]}: {done.stderr}")


def self_signed(directory: Path, name: str = "itself", hosts: Sequence[str] = HERE) -> Pair:
    """What `openssl req -x509` makes: an authority's certificate, which people use for a server's all the same."""
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    names = ("-addext", f"subjectAltName={_names(hosts)}")
    _openssl(
        "req", "-x509", *KEY, "-days", "30", "-subj", f"/CN={name}", *names, "-keyout", pair.key, "-out", pair.cert
    )
    return pair


def _names(hosts: Sequence[str]) -> str:
    return ",".join(f"{'IP' if host.replace('.', '').isdigit() else 'DNS'}:{host}" for host in hosts)


class Authority:
    """One that signs what it is told to, and takes it back."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.cert = directory / "ca.pem"
        self._settings = directory / "openssl.cnf"
        self._settings.write_text(SETTINGS.format(directory=directory))
        for name, text in (("index.txt", ""), ("serial", "01\n"), ("crlnumber", "01\n")):
            (directory / name).write_text(text)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        out = ("-keyout", directory / "ca.key", "-out", self.cert)
        _openssl("req", "-x509", *KEY, "-days", "30", "-subj", f"/CN={directory.name}", *usage, *out)

    def issue(
        self, name: str, hosts: Sequence[str] = HERE, *, ends: datetime | None = None, cn: str | None = None
    ) -> Pair:
        """A certificate for these hosts (none when empty); an old one of the same name is replaced."""
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        request, signed = self.directory / f"{name}.csr", self.directory / f"{name}.new"
        names = ("-addext", f"subjectAltName={_names(hosts)}") if hosts else ("-addext", "keyUsage=digitalSignature")
        _openssl(
            "req", "-new", *KEY, "-subj", f"/CN={cn or name}", *names, "-keyout", f"{pair.key}.new", "-out", request
        )
        when = ("-startdate", "200101000000Z", "-enddate", f"{ends.astimezone(UTC):%y%m%d%H%M%S}Z") if ends else ()
        _openssl("ca", "-batch", "-notext", "-config", self._settings, *when, "-in", request, "-out", signed)
        Path(f"{pair.key}.new").replace(pair.key)
        signed.replace(pair.cert)
        return pair

    def revocations(self, *revoked: Pair) -> Path:
        """The list of what was taken back so far, with these, as DER, which is all that etcd reads."""
        for pair in revoked:
            _openssl("ca", "-config", self._settings, "-revoke", pair.cert)
        text, binary = self.directory / "crl.pem", self.directory / "crl.der"
        _openssl("ca", "-config", self._settings, "-gencrl", "-out", text)
        _openssl("crl", "-in", text, "-outform", "DER", "-out", f"{binary}.new")
        Path(f"{binary}.new").replace(binary)
        return binary
