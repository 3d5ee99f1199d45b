"""Bytes out of a bucket whose server, or what stands before it, answers strangely."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
import urllib3
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.s3_streams import Deadline, Download


class Client:
    """Answers every request with the same bytes."""

    def __init__(self, **headers: str) -> None:
        self._headers = headers

    def get_object(self, *_: Any, **__: Any) -> urllib3.HTTPResponse:
        return urllib3.HTTPResponse(io.BytesIO(b"voxels"), headers=self._headers, preload_content=False)


def download(client: Any) -> Download:
    return Download(client, "bucket", "volumes/a", Deadline(time.monotonic() + 60))


def test_an_answer_that_does_not_say_its_length_is_no_object() -> None:
    """It would be taken for an empty one, or for one that ended where the line was cut."""
    with pytest.raises(DependencyUnavailable, match="does not say how long"):
        download(Client())
    assert b"voxels" == download(Client(**{"Content-Length": "6"})).read()
