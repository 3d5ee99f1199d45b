"""What a cluster says of objects with one label, kept up by list and watch for as long as somebody asks.

The manner of Kubernetes' own controllers: list once, watch from the version of the list, resume from the last
version seen where a watch ends or breaks, and list again where the server has forgotten that version (410).
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from kubernetes import watch
from kubernetes.client.exceptions import ApiException

_log = logging.getLogger(__name__)
Record = Mapping[str, Any]
#: The server ends a watch after this; a new one goes on from there.
_WATCH_S: Final = 60
#: Connect and read time-outs. A watch of which nothing was heard for longer than it lasts is broken.
_LIST_TIMEOUT_S: Final = (3.0, 10.0)
_WATCH_TIMEOUT_S: Final = (3.0, _WATCH_S + 10.0)
#: So long after the last question the watch goes on.
_IDLE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_GONE: Final = 410


class Reflection:
    """Objects of one kind, by uid, as the cluster has them now or had them a moment ago.

    `list_objects` is a list method of a client's API that takes `watch`, bound to its namespace and selector. Ask
    from any thread. Nothing is asked of the cluster before the first question, nor once the questions have ended.
    """

    def __init__(self, name: str, list_objects: Callable[..., Any]) -> None:
        self._name = name
        self._list_objects = list_objects
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._is_current = False
        self._asked_at = 0.0
        self._thread: threading.Thread | None = None
        #: The newest one seen; empty: list first.
        self._version = ""

    def records(self) -> Mapping[str, Record] | None:
        """All of them; None while the cluster is not being heard: ask it yourself."""
        with self._lock:
            self._asked_at = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name=f"watch-{self._name}", daemon=True)
                self._thread.start()
            return dict(self._records) if self._is_current else None

    def _follow(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._goes_on():
            try:
                self._version = self._version or self._list()
                self._watch()
                pause_s = _FIRST_PAUSE_S
                continue
            except ApiException as error:
                if error.status == _GONE:
                    self._version = ""
                self._lose(f"the Kubernetes API answers {error.status}")
            except Exception as error:
                # Whatever it is, who asks must not be told what was true before it.
                self._lose(type(error).__name__)
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _goes_on(self) -> bool:
        with self._lock:
            if time.monotonic() - self._asked_at < _IDLE_S:
                return True
            self._thread, self._is_current, self._records, self._version = None, False, {}, ""
            return False

    def _list(self) -> str:
        answer = json.loads(self._list_objects(_preload_content=False, _request_timeout=_LIST_TIMEOUT_S).data)
        with self._lock:
            self._records = {item["metadata"]["uid"]: item for item in answer.get("items") or ()}
        return answer["metadata"]["resourceVersion"]

    def _watch(self) -> None:
        """Take in what changes after the newest version seen, until the server ends the watch."""
        # Typed as lines of text too, which only logs are.
        events: Iterator[Any] = cast("Any", watch.Watch(return_type=object)).stream(
            self._open,
            resource_version=self._version,
            timeout_seconds=_WATCH_S,
            allow_watch_bookmarks=True,
            _request_timeout=_WATCH_TIMEOUT_S,
        )
        for event in events:
            if event is not None:
                self._take(event["type"], event["raw_object"])

    def _open(self, **options: Any) -> Any:
        """That the server answers means that it is being heard."""
        answer = self._list_objects(**options)
        with self._lock:
            self._is_current = True
        return answer

    def _take(self, kind: str, record: Record) -> None:
        self._version = record["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        with self._lock:
            if kind == "DELETED":
                self._records.pop(record["metadata"]["uid"], None)
            else:
                self._records[record["metadata"]["uid"]] = record

    def _lose(self, why: str) -> None:
        with self._lock:
            was_current, self._is_current = self._is_current, False
        level = logging.WARNING if was_current else logging.DEBUG
        _log.log(level, "watching %s: %s", self._name, why, extra={"action": "watch.lost"})
