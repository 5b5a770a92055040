"""What every kvctl command shares: global flags, one client, and errors in the words and codes of etcd's client."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from typer import BadParameter

from cli.kvctl import gotext
from cli.kvctl.commandline import FLAG
from cli.output import fail

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.errors import StoreError
    from kvstore.tls import Tls

T = TypeVar("T")
REFUSED, BAD_CONNECTION, BAD_INPUT, BAD_FEATURE, INTERRUPTED, BAD_ARGUMENTS = 1, 2, 3, 4, 5, 128
"""Exit codes, as with etcd's client: the store's refusal, no connection, what was read makes no sense, a flag's value
is none that there is, what was to go on has ended, arguments make no sense."""
OUTPUTS = ("simple", "json", "table", "fields", "protobuf")
DEFAULT_SEND_BYTES = 2 * 1024 * 1024
MAX_RECEIVE_BYTES = 2**31 - 1
_WRONG_PASSWORD = "authentication failed, invalid user ID or password"
_HINTS = (
    ("(os error 111)", "Nobody listens there: start 'fleetd' or 'kvstore', or name who does with --endpoints."),
    ("user name is empty", "Authentication is on: give --user NAME:PASSWORD."),
    ("permission denied", "See what the user may with 'kvctl user get NAME --detail'."),
    ("database space exceeded", "Make room: 'kvctl compaction REVISION', 'kvctl defrag', then 'kvctl alarm disarm'."),
    ("larger than max (", "--max-request-bytes and --max-recv-bytes say how large a message may be."),
    ("requested lease not found", "'kvctl lease list' shows the leases that there are."),
    ("member not found", "'kvctl member list' shows the members and their ids."),
    ("revision has been compacted", "Older revisions are gone; 'kvctl get KEY' reads the newest."),
    ("in sync with leader", "'kvctl endpoint status --cluster' shows how far the learner is; try again then."),
    ("not enough started members", "'kvctl endpoint health --cluster' shows which members do not answer."),
    ("root user does not exist", "Make one first: 'kvctl user add root'."),
    ("bad leader transferee", "'kvctl member list' shows the members; a learner can't lead."),
    ("No such file or directory (os error 2)", "Give a path that is there; of a new file, one in a directory that is."),
    (
        "Permission denied (os error 13)",
        "This user may not read or write there: give another path, or run as one who may.",
    ),
    ("dns lookup errors", "Name the domain that has records of _etcd-client._tcp, or the members with --endpoints."),
)


@dataclasses.dataclass
class Flags:
    """The global flags."""

    endpoints: list[str] = dataclasses.field(default_factory=lambda: ["127.0.0.1:2379"])
    output: str = "simple"
    hex: bool = False
    timeout: float = 5.0
    timeout_given: bool = False
    user: str = ""
    password: str = ""
    token: str = ""
    who: tuple[str, str] | None = None
    """Name and password, once they are known."""
    tls: Tls | None = None
    limits: tuple[int, int] = (DEFAULT_SEND_BYTES, MAX_RECEIVE_BYTES)
    """Bytes of the largest message that is sent, and of the largest that is taken."""

    @property
    def json(self) -> bool:
        """Whether the output is JSON."""
        return self.output == "json"


flags = Flags()


def whole(given: str | int) -> int:
    """A flag's number: 64 bits with a sign. Its default is one already."""
    if isinstance(given, int):
        return given
    try:
        return gotext.integer(given, base=0)
    except gotext.GoTextError as error:
        raise BadParameter(f"invalid argument {gotext.quote(given)} for {FLAG} flag: {error}") from error


def number(text: str, saying: str = "{}", *, base: int = 16, signed: bool = True, code: int = BAD_ARGUMENTS) -> int:
    """An argument's number, an id for one; `saying` is the error's words around Go's own."""
    try:
        return gotext.integer(text, base=base, signed=signed)
    except gotext.GoTextError as error:
        fail(saying.format(error), code)


def login(user: str, password: str, prompt: str = "Password: ") -> tuple[str, str]:
    """Name and password of `NAME[:PASSWORD]`; asks for a password that is not given."""
    if password:
        return user, password
    name, given, rest = user.partition(":")
    if given:
        return name, rest
    from getpass import getpass

    return user, getpass(prompt)


def identity() -> tuple[str, str] | None:
    """Who the global flags say that we are."""
    if flags.token:
        return "", flags.token
    if flags.user and flags.who is None:
        flags.who = login(flags.user, flags.password)
    return flags.who


def connect(endpoints: list[str] | None = None, *, patient: bool = False, login: Any = identity) -> Client:
    """A client with the global flags, of another `login` where one is given, None for nobody. Raises ValueError."""
    from kvstore.client import Client

    who = login() if callable(login) else login
    where = endpoints or flags.endpoints
    return Client(where, timeout=flags.timeout, patient=patient, tls=flags.tls, login=who, limits=flags.limits)


def told(error: StoreError) -> str:
    """An error in the words of etcd's client."""
    from kvstore.errors import Unavailable

    if error.message.startswith("etcdserver:") or isinstance(error, Unavailable):
        return error.message
    code = "".join(word.capitalize() for word in error.code.split("_"))
    return f"rpc error: code = {code} desc = {error.message}"


def advise(text: str) -> None:
    """Say what to do about an error, where there is something."""
    for part, hint in _HINTS:
        if part in text:
            print(hint, file=sys.stderr)


def refuse(error: StoreError, code: int = REFUSED, saying: str = "{}") -> NoReturn:
    """End the program with the store's words, after a hint what to do where there is one."""
    text = told(error)
    advise(text)
    if _WRONG_PASSWORD in text:
        fail(text, BAD_CONNECTION)
    fail(saying.format(text), code)


def asynchronous(work: Callable[[], Awaitable[T]], *, code: int = REFUSED, saying: str = "{}") -> T:
    """Do it; an error of the store ends the program with its words and `code`."""
    import asyncio  # like the client, what --help need not wait for

    from kvstore.errors import StoreError

    async def inside() -> T:
        return await work()

    try:
        return asyncio.run(inside())
    except StoreError as error:
        refuse(error, code, saying)
    except ValueError as error:
        fail(str(error), BAD_ARGUMENTS)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def run(
    work: Callable[[Client], Awaitable[T]],
    *,
    patient: bool = False,
    code: int = REFUSED,
    saying: str = "{}",
    login: Any = identity,
) -> T:
    """The same with a client. What goes on for long is `patient` when nobody listens for a moment."""

    async def inside() -> T:
        async with connect(patient=patient, login=login) as client:
            return await work(client)

    return asynchronous(inside, code=code, saying=saying)


def call(method: str, request: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """One unary method, by name."""
    return run(lambda client: client.call(method, request), **how)


def count(words: list[str] | None, low: int, high: int, message: str) -> list[str]:
    """Check how many arguments there are."""
    words = words or []
    if not low <= len(words) <= high:
        fail(message, BAD_ARGUMENTS)
    return words
