"""What is told of the work while it is done, for whoever measures it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """What a prediction consists of, in this order."""

    #: From the object store, or from a file that was sent.
    READ = "read"
    PREPROCESS = "preprocess"
    #: Only while the engine runs: waiting for one's turn is no part of it.
    MODEL = "model"
    POSTPROCESS = "postprocess"
    WRITE = "write"


class Observation(Protocol):
    """One prediction on its way."""

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """The time within belongs to a stage; a stage may be entered several times."""
        ...


class Observer(Protocol):
    """Told of predictions, of models that are published, and of series that become no volumes."""

    def prediction(self) -> AbstractContextManager[Observation]:
        """From its beginning to its end, well or by an error."""
        ...

    def publication(self) -> AbstractContextManager[None]:
        """A package that is proven and made a version, or is refused by an error."""
        ...

    def series_refused(self, reason: str) -> None:
        """A series of a study became no volume; `reason` as errors have it."""
        ...


class Unobserved:
    """Nobody measures."""

    @contextmanager
    def prediction(self) -> Generator[Observation]:
        yield self

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        del stage
        return nullcontext()

    def publication(self) -> AbstractContextManager[None]:
        return nullcontext()

    def series_refused(self, reason: str) -> None: ...
