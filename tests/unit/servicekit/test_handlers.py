"""Methods of servicers: reading, mutating once, watching, over a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.errors import AlreadyExists, DependencyUnavailable, InvalidInput, NotFound
from rekindle_servicekit import context
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.database import make_engine, read, write
from rekindle_servicekit.handlers import Backend, Handlers, News
from rekindle_servicekit.idempotency import Requests, define_requests
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Workers

_ANN = Principal(issuer="i", subject="ann", display_name="Ann")
_BOB = Principal(issuer="i", subject="bob", display_name="Bob")
_METADATA = sa.MetaData()
_NOTES = sa.Table("notes", _METADATA, sa.Column("text", sa.Text))
define_requests(_METADATA)


@dataclass
class Unit:
    """A unit of work with one table of notes."""

    connection: sa.Connection

    @property
    def requests(self) -> Requests:
        return Requests(self.connection, datetime(2024, 5, 1, tzinfo=UTC))

    def add_note(self, text: str) -> pb.TrainNowResponse:
        self.connection.execute(sa.insert(_NOTES).values(text=text))
        response = pb.TrainNowResponse()
        response.round.reason = text
        return response

    def notes(self) -> list[str]:
        return list(self.connection.execute(sa.select(_NOTES.c.text)).scalars())


class NotesState:
    """Units of work on a SQLite file."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Generator[Unit]:
        with read(self._engine) as connection:
            yield Unit(connection)

    @contextmanager
    def write(self) -> Generator[Unit]:
        with write(self._engine) as connection:
            yield Unit(connection)


class Notes(Handlers[Unit]):
    """A servicer whose parts the tests reach as a subclass does."""

    def __init__(self, backend: Backend[Unit]) -> None:
        super().__init__(backend)
        self.backend = backend


Scenario = Callable[[Notes], Awaitable[Any]]


@pytest.fixture
def play(tmp_path: Path) -> Generator[Callable[[Scenario], Any]]:
    """Play a scenario with handlers over an empty database, as Ann."""
    engine = make_engine(f"sqlite:///{tmp_path}/test.db")
    _METADATA.create_all(engine)
    workers = Workers(max_threads=4)

    def run(scenario: Scenario) -> Any:
        async def main() -> Any:
            backend = Backend(
                state=NotesState(engine),
                workers=workers,
                bell=Bell(),
                stopping=asyncio.Event(),
                watch_interval_s=3600.0,
            )
            with context.bind(principal=_ANN):
                return await asyncio.wait_for(scenario(Notes(backend)), 60)

        return asyncio.run(main())

    yield run
    workers.close()
    engine.dispose()


def _request(request_id: str = "q1", project: str = "p") -> pb.TrainNowRequest:
    return pb.TrainNowRequest(request_id=request_id, project_id=project)


def test_retry_gets_the_first_response(play: Callable[[Scenario], Any]) -> None:
    """A request that comes again is not carried out again, and is answered as the first time."""

    async def scenario(notes: Notes) -> tuple[Any, Any, list[str]]:
        first = await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("first"))
        again = await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("again"))
        return first, again, await notes.read(lambda uow: uow.notes())

    first, again, texts = play(scenario)
    assert first == again
    assert ["first"] == texts


def test_retries_at_the_same_moment_are_carried_out_once(play: Callable[[Scenario], Any]) -> None:
    """Copies of a request that arrive together write once; each is answered alike or told to come again."""

    async def scenario(notes: Notes) -> tuple[list[Any], list[str]]:
        calls = [notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("x")) for _ in range(4)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        return outcomes, await notes.read(lambda uow: uow.notes())

    outcomes, texts = play(scenario)
    assert ["x"] == texts
    assert {"x"} == {outcome.round.reason for outcome in outcomes if not isinstance(outcome, DependencyUnavailable)}


def test_id_of_another_request_is_refused(play: Callable[[Scenario], Any]) -> None:
    """The same id with other content is not answered with the first one's response."""

    async def scenario(notes: Notes) -> None:
        await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("x"))
        await notes.mutate(_request(project="other"), pb.TrainNowResponse, lambda uow: uow.add_note("y"))

    with pytest.raises(AlreadyExists) as refusal:
        play(scenario)
    assert "REQUEST_ID_REUSED" == refusal.value.reason


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a\nb"])
def test_unusable_ids_are_refused(play: Callable[[Scenario], Any], request_id: str) -> None:
    """A request without an id, or with one that cannot be kept, changes nothing."""

    async def scenario(notes: Notes) -> list[str]:
        with pytest.raises(InvalidInput, match="request_id"):
            await notes.mutate(_request(request_id), pb.TrainNowResponse, lambda uow: uow.add_note("x"))
        return await notes.read(lambda uow: uow.notes())

    assert [] == play(scenario)


def test_ids_belong_to_their_callers(play: Callable[[Scenario], Any]) -> None:
    """Two callers may choose the same id: each is answered for themselves."""

    async def scenario(notes: Notes) -> str:
        await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("ann"))
        with context.bind(principal=_BOB):
            response = await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("bob"))
        return response.round.reason

    assert "bob" == play(scenario)


def test_failed_work_leaves_no_answer(play: Callable[[Scenario], Any]) -> None:
    """Work that fails writes nothing and keeps no answer, so that a retry is carried out."""

    def fail(uow: Unit) -> pb.TrainNowResponse:
        uow.add_note("half")
        raise NotFound("gone")

    async def scenario(notes: Notes) -> list[str]:
        with pytest.raises(NotFound):
            await notes.mutate(_request(), pb.TrainNowResponse, fail)
        await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("whole"))
        return await notes.read(lambda uow: uow.notes())

    assert ["whole"] == play(scenario)


def test_preparation_is_handed_on_and_not_repeated(play: Callable[[Scenario], Any]) -> None:
    """What is prepared before the transaction reaches the work; a retry prepares nothing."""
    prepared: list[str] = []

    def prepare() -> str:
        prepared.append("receipt")
        return "receipt"

    async def scenario(notes: Notes) -> str:
        for _ in range(2):
            response = await notes.mutate(
                _request(), pb.TrainNowResponse, lambda uow, receipt: uow.add_note(receipt), prepare=prepare
            )
        return response.round.reason

    assert "receipt" == play(scenario)
    assert ["receipt"] == prepared


def test_response_without_a_change_is_not_kept(play: Callable[[Scenario], Any]) -> None:
    """A response that changed nothing is not kept and rings no bell: the same request asks anew."""

    async def scenario(notes: Notes) -> tuple[int, list[str]]:
        for text in ("none", "none", "case"):
            await notes.mutate(
                _request(),
                pb.TrainNowResponse,
                lambda uow, text=text: uow.add_note(text),
                changed=lambda response: response.round.reason != "none",
            )
        return notes.backend.bell.count, await notes.read(lambda uow: uow.notes())

    assert (1, ["none", "none", "case"]) == play(scenario)


def test_answered_tells_a_retry_beforehand(play: Callable[[Scenario], Any]) -> None:
    """A method that has much to receive learns before it whether the request was answered."""

    async def scenario(notes: Notes) -> tuple[Any, Any]:
        before = await notes.answered(_request(), pb.TrainNowResponse)
        await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("x"))
        return before, await notes.answered(_request(), pb.TrainNowResponse)

    before, after = play(scenario)
    assert before is None
    assert "x" == after.round.reason


async def _notes_after(notes: Notes, seen: list[str]) -> News:
    texts = await notes.read(lambda uow: uow.notes())
    return News(texts[len(seen) :], has_ended="end" in texts)


async def _collect(watch: AsyncIterator[Any], seen: list[str], arrived: asyncio.Event) -> None:
    async for text in watch:
        seen.append(text)
        arrived.set()


def test_watch_tells_changes_until_the_end(play: Callable[[Scenario], Any]) -> None:
    """A watch sends what is there, wakes at a change, and ends behind the last message."""

    async def scenario(notes: Notes) -> list[str]:
        seen: list[str] = []
        arrived = asyncio.Event()
        await notes.mutate(_request("1"), pb.TrainNowResponse, lambda uow: uow.add_note("begin"))
        watching = asyncio.create_task(_collect(notes.watch(lambda: _notes_after(notes, seen)), seen, arrived))
        await arrived.wait()
        await notes.mutate(_request("2"), pb.TrainNowResponse, lambda uow: uow.add_note("end"))
        await watching
        return seen

    assert ["begin", "end"] == play(scenario)


def test_watch_ends_with_stopping(play: Callable[[Scenario], Any]) -> None:
    """A watch does not end as if all were told when the service stops: the client goes on after the restart."""

    async def scenario(notes: Notes) -> list[str]:
        seen: list[str] = []
        arrived = asyncio.Event()
        await notes.mutate(_request(), pb.TrainNowResponse, lambda uow: uow.add_note("begin"))
        watching = asyncio.create_task(_collect(notes.watch(lambda: _notes_after(notes, seen)), seen, arrived))
        await arrived.wait()
        notes.backend.stopping.set()
        with pytest.raises(DependencyUnavailable) as ending:
            await watching
        assert "STOPPING" == ending.value.reason
        return seen

    assert ["begin"] == play(scenario)
