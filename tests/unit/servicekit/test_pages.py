"""Pages and their tokens."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.errors import InvalidInput
from rekindle_servicekit.pages import Paging


def _rows(paging: Paging, total: int) -> list[int]:
    """What a repository would read: numbers behind the place, as many as asked for."""
    return list(range(paging.after[0] + 1, total))[: paging.limit]


@given(st.integers(0, 40), st.integers(1, 12))
def test_pages_give_every_row_once_in_order(total: int, size: int) -> None:
    """Whatever the size, following the tokens gives each row once, and the last page has no token."""
    seen: list[int] = []
    token = ""
    for _ in range(total + 1):
        paging = Paging(pb.ListRoundsRequest(project_id="p", page_size=size, page_token=token), [-1])
        page = paging.page(_rows(paging, total), lambda number: [number])
        assert len(page.items) <= size
        seen += page.items
        token = page.next_token
        if not token:
            break
    assert list(range(total)) == seen


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_size_has_a_default_and_a_limit(asked: int, size: int) -> None:
    """0 asks for 100 items; more than 1,000 are cut to 1,000."""
    assert size == Paging(pb.ListRoundsRequest(page_size=asked), [-1]).size


def test_negative_size_is_refused() -> None:
    """A negative size is bad input that names its field."""
    with pytest.raises(InvalidInput, match="negative") as refusal:
        Paging(pb.ListRoundsRequest(page_size=-1), [-1])
    assert "page_size" == refusal.value.violations[0].field


def _token(request: pb.ListRoundsRequest | pb.ListCasesRequest) -> str:
    return Paging(request, [-1]).page(list(range(200)), lambda number: [number]).next_token


def test_token_may_come_with_another_size() -> None:
    """The size is not part of what was asked for: a client may change it from page to page."""
    token = _token(pb.ListRoundsRequest(project_id="p", page_size=3))
    assert [2] == Paging(pb.ListRoundsRequest(project_id="p", page_size=50, page_token=token), [-1]).after


@pytest.mark.parametrize(
    "request_",
    [pb.ListRoundsRequest(project_id="other"), pb.ListCasesRequest(project_id="p")],
)
def test_token_of_another_list_is_refused(request_: pb.ListRoundsRequest | pb.ListCasesRequest) -> None:
    """A token serves the list that it was given for: neither another project's nor another method's."""
    request_.page_token = _token(pb.ListRoundsRequest(project_id="p"))
    with pytest.raises(InvalidInput, match="other filters"):
        Paging(request_, [-1])


def _forged(place: object) -> str:
    """A token with the right digest and another place."""
    padded = _token(pb.ListRoundsRequest()) + "=="
    digest = json.loads(base64.urlsafe_b64decode(padded))[0]
    return base64.urlsafe_b64encode(json.dumps([digest, place]).encode()).decode()


@pytest.mark.parametrize(
    "token",
    ["17", "é", "%%%", "AAAA", base64.urlsafe_b64encode(b"{}").decode(), _forged("x"), _forged(["a"]), _forged([1, 2])],
)
def test_text_that_is_not_a_token_is_refused(token: str) -> None:
    """Neither another service's token nor a damaged or forged one is taken, and none of them is a crash."""
    with pytest.raises(InvalidInput, match="page_token") as refusal:
        Paging(pb.ListRoundsRequest(page_token=token), [-1])
    assert "page_token" == refusal.value.violations[0].field
