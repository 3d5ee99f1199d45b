"""What is known of a cluster by watching it, where the API server's answers are played."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from rekindle_trainer.adapters import kubernetes_watch
from rekindle_trainer.adapters.kubernetes_watch import Reflection
from suites.launchers import wait_for


def _object(uid: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}, **more}


class Server:
    """Answers list with `objects` at `version`, and watch with what is put into `events`; an exception is raised."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = []
        self.version = 10
        self.events: queue.Queue[Any] = queue.Queue()
        #: What was asked: "list", or the version that a watch began at.
        self.asked: list[str] = []
        #: Raised instead of opening a watch, for as long as it is set.
        self.refusal: Exception | None = None

    def __call__(self, **options: Any) -> Any:
        if not options.get("watch"):
            self.asked.append("list")
            return _Answer(json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": self.objects}))
        self.asked.append(options["resource_version"])
        if self.refusal is not None:
            raise self.refusal
        return _Stream(self.events)

    def tell(self, kind: str, record: dict[str, Any]) -> None:
        self.events.put(json.dumps({"type": kind, "object": record}).encode() + b"\n")

    def end(self) -> None:
        self.events.put(None)


class _Answer:
    def __init__(self, data: str) -> None:
        self.data = data


class _Stream:
    status = 200

    def __init__(self, events: queue.Queue[Any]) -> None:
        self._events = events

    def stream(self, **_: Any) -> Iterator[bytes]:
        while (event := self._events.get(timeout=20)) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def close(self) -> None: ...

    def release_conn(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Failures are followed by next to no pause."""
    monkeypatch.setattr(kubernetes_watch, "_FIRST_PAUSE_S", 0.001)
    server = Server()
    yield server
    server.refusal = None
    _end(server, monkeypatch)


def _end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody have asked for long, and the server end its watch."""
    monkeypatch.setattr(kubernetes_watch, "_IDLE_S", 0.0)
    server.end()
    wait_for(lambda: not any(thread.name == "watch-things" for thread in threading.enumerate()))


def _known(reflection: Reflection) -> list[str] | None:
    records = reflection.records()
    return None if records is None else sorted(records)


def test_it_keeps_up(server: Server) -> None:
    """Objects that were there, that came, changed and went; nothing is asked of the server twice."""
    server.objects = [_object("a", 1), _object("b", 2)]
    reflection = Reflection("things", server)
    wait_for(lambda: _known(reflection) == ["a", "b"])
    server.tell("ADDED", _object("c", 11))
    server.tell("MODIFIED", _object("a", 12, changed=True))
    server.tell("DELETED", _object("b", 13))
    wait_for(lambda: _known(reflection) == ["a", "c"])
    assert (reflection.records() or {})["a"]["changed"]
    assert ["list", "10"] == server.asked


def test_nothing_is_known_before_the_server_answers(server: Server) -> None:
    """Who asks first is told so, and does not wait."""
    server.refusal = ApiException(status=403)
    reflection = Reflection("things", server)
    wait_for(lambda: reflection.records() is None and len(server.asked) > 3)
    server.refusal = None
    wait_for(lambda: _known(reflection) == [])


@pytest.mark.parametrize("how", [None, OSError("reset"), TimeoutError("silent"), KeyError("nonsense")])
def test_a_watch_that_ends_goes_on_where_it_was(server: Server, how: Exception | None) -> None:
    """Ended by the server or broken off: the next one begins at the newest version seen, bookmarks among them."""
    reflection = Reflection("things", server)
    wait_for(lambda: _known(reflection) == [])
    server.tell("ADDED", _object("a", 20))
    server.tell("BOOKMARK", _object("", 30))
    wait_for(lambda: _known(reflection) == ["a"])
    server.events.put(how)
    server.tell("ADDED", _object("b", 31))
    wait_for(lambda: _known(reflection) == ["a", "b"])
    assert ["list", "10", "30"] == server.asked


def test_a_broken_watch_tells_nothing(server: Server) -> None:
    """Until the server is heard again, nobody is told what was true before."""
    reflection = Reflection("things", server)
    wait_for(lambda: _known(reflection) == [])
    server.refusal = ApiException(status=503)
    server.events.put(OSError("reset"))
    wait_for(lambda: reflection.records() is None)
    server.refusal = None
    wait_for(lambda: _known(reflection) == [])
    assert ["list"] == [what for what in server.asked if what != "10"]


@pytest.mark.parametrize("is_event", [True, False])
def test_a_forgotten_version_is_listed_anew(server: Server, is_event: bool) -> None:
    """The server says 410 in the stream or instead of it: what went meanwhile is gone here too."""
    server.objects = [_object("a", 1)]
    reflection = Reflection("things", server)
    wait_for(lambda: _known(reflection) == ["a"])
    server.objects, server.version = [_object("b", 50)], 60
    gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
    if is_event:
        server.tell("ERROR", gone)
    else:
        server.refusal = ApiException(status=410)
        server.end()
        wait_for(lambda: reflection.records() is None)
        server.refusal = None
    wait_for(lambda: _known(reflection) == ["b"])
    assert ["list", "60"] == server.asked[-2:]


def test_it_ends_when_nobody_asks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last question the watch ends, at the server's next turn; a later question begins anew."""
    reflection = Reflection("things", server)
    wait_for(lambda: _known(reflection) == [])
    _end(server, monkeypatch)
    monkeypatch.setattr(kubernetes_watch, "_IDLE_S", 60.0)
    server.objects = [_object("a", 1)]
    wait_for(lambda: _known(reflection) == ["a"])
