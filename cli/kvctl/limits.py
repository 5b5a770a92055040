"""kvctl's flags of the largest messages, with the meaning that they have in etcd's client."""

from __future__ import annotations

from cli.kvctl import gotext
from cli.kvctl.session import BAD_CONNECTION, DEFAULT_SEND_BYTES, MAX_RECEIVE_BYTES
from cli.output import fail


def of(send: str, receive: str) -> tuple[int, int]:
    """Bytes of the largest message that is sent, and of the largest that is taken; 0 and less mean the defaults."""
    sent, taken = _bytes("max-request-bytes", send), _bytes("max-recv-bytes", receive)
    if 0 < taken < sent:
        fail(f"gRPC message recv limit ({taken} bytes) must be greater than send limit ({sent} bytes)", BAD_CONNECTION)
    return sent if sent > 0 else DEFAULT_SEND_BYTES, taken if taken > 0 else MAX_RECEIVE_BYTES


def _bytes(name: str, text: str) -> int:
    try:
        return gotext.integer(text, base=0)
    except gotext.GoTextError as error:
        fail(f'invalid argument {gotext.quote(text)} for "--{name}" flag: {error}')
