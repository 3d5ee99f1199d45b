"""JSON log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest
from rekindle_servicekit import context
from rekindle_servicekit.logs import install_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go; the root logger is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    out = io.StringIO()
    install_logging("tester", stream=out)
    yield out
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def test_line_has_ids_action_and_extra(stream: io.StringIO) -> None:
    """A line is one JSON object with the context's ids, the action, other extras and the message."""
    with context.bind(request_id="q1", project="p1", round=2, run="r1"):
        logging.getLogger("a.b").info("case %s\nleased", "c1", extra={"action": "lease", "minutes": 3})
    assert 1 == stream.getvalue().count("\n")
    line = json.loads(stream.getvalue())
    moment = datetime.fromisoformat(line.pop("ts"))
    assert moment.tzinfo is not None
    assert {
        "level": "INFO",
        "service": "tester",
        "logger": "a.b",
        "action": "lease",
        "request_id": "q1",
        "project": "p1",
        "round": "2",
        "run": "r1",
        "minutes": 3,
        "message": "case c1\nleased",
    } == line


def test_ids_end_with_their_context(stream: io.StringIO) -> None:
    """Inner ids hide outer ones only inside, and none are left behind."""
    with context.bind(project="p1"):
        with context.bind(project="p2", run="r1"):
            assert {"project": "p2", "run": "r1"} == context.ids()
        assert {"project": "p1"} == context.ids()
    assert {} == context.ids()
    logging.getLogger("a").warning("plain")
    assert "request_id" not in json.loads(stream.getvalue())


def test_exception_is_in_the_line(stream: io.StringIO) -> None:
    """A traceback stays within its line."""
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("a").exception("failed")
    line = json.loads(stream.getvalue())
    assert "ERROR" == line["level"]
    assert line["exception"].endswith("ValueError: boom")


def test_level_is_respected(stream: io.StringIO) -> None:
    """Below the level nothing is written."""
    logging.getLogger("a").debug("noise")
    assert "" == stream.getvalue()
