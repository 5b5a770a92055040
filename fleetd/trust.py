"""Every channel's credentials come from here, so that certificates arrive in one place.

Until the certificates' own issue there are two answers: plain text on loopback, and plain text beyond it when the user
said `--insecure`. Nothing else in the project decides what is encrypted.
"""

from __future__ import annotations

import grpc
import grpc.aio

from fleetd.config import Config

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 2_000
RECONNECT_MS = 1_000
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.so_reuseport", 0),
    # A machine that lost its power is back in seconds; the library's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
    ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
    ("grpc.use_local_subchannel_pool", 1),
)


class Trust:
    """The credentials of one machine; `Config` has already refused plain TCP that nobody asked for."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def listen(self, server: grpc.aio.Server, address: str) -> None:
        """Open node RPC's port. Raises OSError when the address is taken or not this machine's."""
        refusal = OSError(
            f"can't listen on {address} for node RPC: is it an address of this machine, and no other fleetd there?"
        )
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise refusal from error
        if not port:
            raise refusal

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to another machine's node RPC; the caller closes it."""
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
