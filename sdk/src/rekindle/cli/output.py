"""Tables for people and JSON for programs, on stdout; progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import date
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

#: Width of tables that go into a file or a pipe: wide enough not to cut ids.
PIPE_COLUMNS = 180

Step = Callable[[int, int], None]


class Output:
    """Prints one command's result."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)
        self._err = Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_COLUMNS, highlight=False)

    def rows(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], data: object) -> None:
        """A table; `data` is the same for programs."""
        if self.as_json:
            self.data(data)
            return
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None)
        table.pad_edge = False
        for column in columns:
            table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left")
        count = 0
        for row in rows:
            table.add_row(*(escape(text(cell)) for cell in row))
            count += 1
        self._out.print(table)
        if not count:
            self._out.print("(none)")

    def fields(self, title: str, fields: Iterable[tuple[str, object]], data: object) -> None:
        """One thing, field by field; `data` is the same for programs."""
        if self.as_json:
            self.data(data)
            return
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        table.pad_edge = False
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for name, value in fields:
            table.add_row(name, escape(text(value)))
        self._out.print(table)

    def done(self, message: str, data: object) -> None:
        """What a command has done."""
        if self.as_json:
            self.data(data)
        else:
            self._out.print(escape(message), soft_wrap=True)

    def line(self, message: str, data: object) -> None:
        """One line of something that goes on; JSON on a single line."""
        if self.as_json:
            print(json.dumps(data, default=plain), flush=True)
        else:
            self._out.print(escape(message), soft_wrap=True)

    def data(self, data: object) -> None:
        """JSON on stdout."""
        print(json.dumps(data, default=plain, indent=2))

    def remark(self, message: str) -> None:
        """A word to the person at the screen; never part of the result."""
        self._err.print(escape(message), soft_wrap=True, style="dim")

    @contextmanager
    def progress(self) -> Generator[Bars]:
        """Progress bars on stderr; silent where nobody watches."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, disable=not self._err.is_terminal) as progress:
            yield Bars(progress)


class Bars:
    """The bars of one command."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def bar(self, description: str) -> Step:
        """A new bar, moved by calls with (done, in all)."""
        task = self._progress.add_task(escape(description), total=None, note="")
        return lambda done, total: self._progress.update(task, completed=done, total=total)

    def count(self, description: str, total: int) -> Callable[[str], None]:
        """A bar over `total` things; a call begins the next thing, named in the bar."""
        task = self._progress.add_task(escape(description), total=total, note="")
        begun = 0

        def begin(name: str) -> None:
            nonlocal begun
            self._progress.update(task, completed=begun, note=escape(name))
            begun += 1

        return begin


def text(value: object) -> str:
    """A cell as a person reads it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def counted(number: int, noun: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def dice(value: float | None) -> str | None:
    """A Dice with the digits that it deserves."""
    return None if value is None else f"{value:.3f}"


def plain(value: object) -> Any:
    """What JSON does not know: records and moments."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not for JSON")
