"""Calls of a native client as awaitables: each has a number, and an eventfd tells the event loop that answers wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kvstore._core import NativeClient
from kvstore.errors import StoreError, of_status
from kvstore.model import Login
from kvstore.tls import Tls
from kvstore.watching import Watch


class Calls:
    """What runs on one set of connections, of one event loop."""

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout: float,
        patient: bool,
        tls: Tls | None = None,
        login: Login | None = None,
        limits: tuple[int, int] | None = None,
    ) -> None:
        self._native = NativeClient(list(endpoints), timeout, patient, tls, login, limits)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._watches: dict[int, Watch] = {}
        self._closed = False

    def close(self) -> None:
        """End every call and watch with an error, and all connections."""
        if self._closed:
            return
        self._closed = True
        self._native.close()
        if self._loop is not None:
            self._loop.remove_reader(self._native.fileno())
        error = StoreError("cancelled", "The store client is closed.")
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)
        for watch in self._watches.values():
            watch.fail(error)
        self._calls.clear()
        self._watches.clear()

    def set_endpoints(self, endpoints: Sequence[str]) -> None:
        """Replace the endpoints; what runs goes on."""
        self._native.set_endpoints(list(endpoints))

    def in_flight(self) -> int:
        """Calls and watches that the native client still works on."""
        return self._native.in_flight()

    def native(self) -> NativeClient:
        """The native client, to start a call with; the loop that runs now gets the answers. Raises StoreError."""
        if self._closed:
            raise StoreError("cancelled", "The store client is closed.")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._native.fileno(), self._drain)
        return self._native

    def _drain(self) -> None:
        for number, kind, value in self._native.drain():
            future = self._calls.pop(number, None)
            if future is not None:
                if future.done():
                    continue
                if kind == "error":
                    future.set_exception(of_status(*value))
                else:
                    future.set_result(value)
                continue
            watch = self._watches.get(number)
            if watch is not None and watch.take(kind, value):
                self._watches.pop(number, None)

    async def answer(self, number: int) -> Any:
        """The answer to a call that was just started. Raises StoreError; cancelling it cancels the call."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            return await future
        finally:
            if self._calls.pop(number, None) is not None:
                self._native.cancel(number)

    def open_watch(self, watch: Watch, options: tuple[bytes, bytes, int, bool, bool]) -> int:
        """Start a watch; deliveries go to it. Returns its number."""
        number = self.native().watch(*options)
        self._watches[number] = watch
        return number

    def took(self, number: int) -> None:
        """A watch consumed one delivery."""
        self._native.more(number)

    def ask_progress(self, number: int) -> None:
        """Have a watch told how far it has come."""
        self.native().progress(number)

    def close_watch(self, number: int) -> None:
        """End a watch."""
        self._watches.pop(number, None)
        self._native.cancel(number)
