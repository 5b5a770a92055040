"""Etcd's flags of TLS: name, kind, help, and where the value goes in the server's settings. Their defaults are empty,
or false."""

from __future__ import annotations

CERTIFICATES: tuple[tuple[str, str, str, str], ...] = (
    ("cert-file", "text", "Certificate that clients are shown (PEM).", "client_tls.cert_file"),
    ("key-file", "text", "Its key.", "client_tls.key_file"),
    ("client-cert-auth", "switch", "Clients must show one; its common name is a user.", "client_tls.client_cert_auth"),
    ("trusted-ca-file", "text", "Authorities of clients' certificates.", "client_tls.trusted_ca_file"),
    ("client-crl-file", "text", "Clients' certificates that are revoked (PEM or DER).", "client_tls.crl_file"),
    ("client-cert-allowed-hostname", "list", "Hosts that they must name one of.", "client_tls.allowed_hostnames"),
    ("auto-tls", "switch", "Make a certificate for clients if none is given.", "client_tls.auto"),
    ("peer-cert-file", "text", "Certificate that the other members are shown (PEM).", "peer_tls.cert_file"),
    ("peer-key-file", "text", "Its key.", "peer_tls.key_file"),
    ("peer-client-cert-file", "text", "Shown instead where this member dials.", "peer_tls.client_cert_file"),
    ("peer-client-key-file", "text", "Its key.", "peer_tls.client_key_file"),
    ("peer-client-cert-auth", "switch", "Members must show a certificate.", "peer_tls.client_cert_auth"),
    ("peer-trusted-ca-file", "text", "Authorities of members' certificates.", "peer_tls.trusted_ca_file"),
    ("peer-crl-file", "text", "Members' certificates that are revoked (PEM or DER).", "peer_tls.crl_file"),
    ("peer-cert-allowed-cn", "list", "Common names that they must have one of.", "peer_tls.allowed_cns"),
    ("peer-cert-allowed-hostname", "list", "Hosts that they must name one of.", "peer_tls.allowed_hostnames"),
    ("peer-auto-tls", "switch", "Make a certificate for members if none is given.", "peer_tls.auto"),
    (
        "peer-skip-client-san-verification",
        "switch",
        "Take members from other addresses too.",
        "peer_tls.skip_client_san_verification",
    ),
)
