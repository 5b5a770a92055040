"""Runs in the foreign client's venv: gRPC calls and streams for the runner, by the stubs of package `aetcd`
and what `foreign_services` adds.

One JSON object a line, in and out. Stands alone: it imports nothing of this project, whose protobuf symbols clash.
"""

from __future__ import annotations

import importlib
import json
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

grpc: Any = importlib.import_module("grpc")
unknown_fields: Any = importlib.import_module("google.protobuf.unknown_fields")
message_factory: Any = importlib.import_module("google.protobuf.message_factory")
services: Any = importlib.import_module("foreign_services")

TIMEOUT_S = 60.0
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
END = object()


def to_message(kind: Any, data: dict[str, Any]) -> Any:
    """A protobuf message from plain data; enums by name or number, bytes as texts."""
    message = kind()
    for name, value in data.items():
        field = kind.DESCRIPTOR.fields_by_name[name]
        if field.is_repeated:
            getattr(message, name).extend(_to_value(field, one) for one in value)
        elif field.message_type:
            getattr(message, name).CopyFrom(_to_value(field, value))
        else:
            setattr(message, name, _to_value(field, value))
    return message


def _to_value(field: Any, value: Any) -> Any:
    if field.message_type:
        return to_message(message_factory.GetMessageClass(field.message_type), value)
    if field.enum_type and isinstance(value, str):
        return field.enum_type.values_by_name[value].number
    if field.type == field.TYPE_BYTES:
        return value.encode("latin-1")
    return value


def to_data(message: Any) -> dict[str, Any]:
    """Plain data of a message: the fields that are set, those that the protocol here does not know by number."""
    data: dict[str, Any] = {}
    for field, value in message.ListFields():
        data[field.name] = [_to_plain(field, one) for one in value] if field.is_repeated else _to_plain(field, value)
    for unknown in unknown_fields.UnknownFieldSet(message):
        value = unknown.data
        data[f"field {unknown.field_number}"] = value.decode("latin-1") if isinstance(value, bytes) else repr(value)
    return data


def _to_plain(field: Any, value: Any) -> Any:
    if field.message_type:
        return to_data(value)
    if field.enum_type:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    return value.decode("latin-1") if isinstance(value, bytes) else value


def status(error: Any) -> dict[str, Any]:
    # Which side notices first that the time is over is chance, and so is the text: gRPC's own, or the stream's end.
    late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return {"code": error.code().name, "details": "" if late else error.details()}


class Stream:
    """A stream with a thread that reads it."""

    def __init__(self, call: Any, kind: Any, metadata: Any) -> None:
        self.kind = kind
        self.requests: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self.call = call(iter(self.requests.get, END), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self.call:
                self.answers.put(to_data(answer))
            self.answers.put(status(self.call))
        except grpc.RpcError as error:
            self.answers.put(status(error))

    def take(self, responses: int, events: int, end: bool) -> dict[str, Any]:
        """What came until enough is there, the stream ended, or too much time passed."""
        taken: list[dict[str, Any]] = []
        while end or responses > 0 or events > 0:
            try:
                answer = self.answers.get(timeout=TIMEOUT_S)
            except queue.Empty:
                return {"responses": taken, "stuck": f"nothing more came for {TIMEOUT_S:.0f} s"}
            if "code" in answer:
                return {"responses": taken, **answer}
            taken.append(answer)
            if answer.get("events"):
                events -= len(answer["events"])
            else:
                responses -= 1
        return {"responses": taken}


class Client:
    """Channels and streams by name."""

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.streams: dict[str, Stream] = {}

    def method(self, name: str) -> tuple[Any, Any, str, Any]:
        service, _, method = name.partition("/")
        found = services.SERVICES[service].methods_by_name[method]
        kinds = (message_factory.GetMessageClass(kind) for kind in (found.input_type, found.output_type))
        return (*kinds, f"/{found.containing_service.full_name}/{method}", found)

    def channel(self, at: str) -> Any:
        if at not in self.channels:
            self.channels[at] = grpc.insecure_channel(at, options=OPTIONS)
        return self.channels[at]

    def do_call(
        self, at: str, method: str, request: dict[str, Any], metadata: dict[str, str], patience: float = TIMEOUT_S
    ) -> dict[str, Any]:
        kind, answer, path, _ = self.method(method)
        call = self.channel(at).unary_unary(
            path, request_serializer=kind.SerializeToString, response_deserializer=answer.FromString
        )
        try:
            done = call(to_message(kind, request), metadata=list(metadata.items()), timeout=patience)
        except grpc.RpcError as error:
            return status(error)
        return {"code": "OK", "response": to_data(done)}

    def do_open(self, at: str, stream: str, method: str, metadata: dict[str, str]) -> dict[str, Any]:
        kind, answer, path, _ = self.method(method)
        call = self.channel(at).stream_stream(
            path, request_serializer=kind.SerializeToString, response_deserializer=answer.FromString
        )
        self.streams[stream] = Stream(call, kind, list(metadata.items()))
        return {}

    def do_send(self, stream: str, request: dict[str, Any]) -> dict[str, Any]:
        found = self.streams[stream]
        found.requests.put(to_message(found.kind, request))
        return {}

    def do_take(self, stream: str, responses: int, events: int, end: bool) -> dict[str, Any]:
        return self.streams[stream].take(responses, events, end)

    def do_close(self, stream: str) -> dict[str, Any]:
        self.streams[stream].requests.put(END)
        return {}

    def do_cancel(self, stream: str) -> dict[str, Any]:
        self.streams[stream].call.cancel()
        return {}

    def do_reset(self) -> dict[str, Any]:
        for stream in self.streams.values():
            stream.requests.put(END)
            stream.call.cancel()
        self.streams.clear()
        return {}


def lines() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    client = Client()
    for order in lines():
        answer = getattr(client, f"do_{order.pop('do')}")(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
