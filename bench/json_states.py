"""What a group writes first to share cases out: one JSON file of states, rewritten under a lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

States = dict[str, Any]


class JsonStates:
    """The states of all cases in one file; as durable as a database, without history, time or fencing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_suffix(".lock")

    def register(self, names: Iterable[str]) -> None:
        self._write({name: {"state": "ready", "annotator": None, "expires": None, "mask": None} for name in names})

    def lease(self, annotator: str) -> str:
        """The first case that is ready, or whose lease has run out."""

        def change(states: States) -> str:
            now = datetime.now(UTC)
            name = next(name for name, each in states.items() if _is_free(each, now.isoformat()))
            expires = (now + timedelta(hours=2)).isoformat()
            states[name] = {"state": "leased", "annotator": annotator, "expires": expires, "mask": None}
            return name

        return self._changed(change)

    def submit(self, name: str, annotator: str, mask: str) -> None:
        """Done, with the mask's name."""

        def change(states: States) -> str:
            if states[name]["annotator"] != annotator:
                raise ValueError("the lease is somebody else's")
            states[name] = {"state": "done", "annotator": annotator, "expires": None, "mask": mask}
            return name

        self._changed(change)

    def _changed(self, change: Callable[[States], str]) -> str:
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            states: States = json.loads(self._path.read_text())
            name = change(states)
            self._write(states)
            return name

    def _write(self, states: States) -> None:
        unfinished = self._path.with_suffix(".new")
        with unfinished.open("w") as file:
            file.write(json.dumps(states))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)


def _is_free(state: dict[str, Any], now: str) -> bool:
    return state["state"] == "ready" or (state["state"] == "leased" and state["expires"] < now)
