"""Figures, and how they are taken: alternating repeats, children of their own, peak memory."""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a subject is asked for."""

    #: Few repeats and smaller inputs: whether everything works, rather than how fast it is.
    quick: bool
    #: The paper's networks too, which take minutes without a GPU.
    full: bool
    #: Folder for everything written meanwhile; on the disk that the product would write to.
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value with the lowest and highest of its repeats."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Median and range."""
        return cls(value=statistics.median(values), low=min(values), high=max(values))

    @classmethod
    def rate(cls, amount: float, seconds: Sequence[float]) -> Figure:
        """`amount` per second, from the seconds that each repeat took."""
        return cls.of([amount / each for each in seconds])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: the same work done by Rekindle and by something else, in the same run."""

    what: str
    unit: str
    more_is_better: bool
    rekindle: Figure
    #: Name of the alternative that a user would take instead.
    instead: str
    other: Figure

    @property
    def times_better(self) -> float:
        """How many times better Rekindle does; below 1 where it does worse."""
        ratio = self.rekindle.value / self.other.value
        return ratio if self.more_is_better else 1 / ratio

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "times_better": round(self.times_better, 3)}


Subject = Callable[[Options], list[Row]]


def alternate(repeats: int, *actions: Callable[[], object]) -> list[list[float]]:
    """Seconds of each repeat of each action.

    The actions take turns, so that a machine that becomes slower meanwhile slows all of them. A first turn is not
    counted.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(repeats + 1):
        for taken, action in zip(seconds, actions, strict=True):
            began = time.perf_counter()
            action()
            if turn:
                taken.append(time.perf_counter() - began)
    return seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns in a process of its own, started from nothing; it must be a module's."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *args, **kwargs).result()


@contextmanager
def environment(**values: str) -> Generator[None]:
    """Children that start meanwhile get these variables too."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def peak_rss_bytes() -> int:
    """Most memory that this process has held at once.

    On Linux from /proc: what getrusage tells a child begins with its parent's size.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
