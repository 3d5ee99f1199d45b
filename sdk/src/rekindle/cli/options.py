"""What every command has: --json and --project after it too, and errors as one clear line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rekindle.cli.failures import exit_code, tell
from rekindle.cli.session import Session
from rekindle.errors import RekindleError

pass_session = click.make_pass_decorator(Session)

Function = TypeVar("Function", bound=Callable[..., Any])


class RekindleCommand(click.Command):
    """A command that takes --project and --json wherever they are written."""

    #: Whether --project means anything to it; where not, it is taken and not told of.
    of_a_project = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--project", "project_name"],
                metavar="NAME",
                expose_value=False,
                callback=_take_project,
                hidden=not self.of_a_project,
                help="Name or id of the project; not needed while there is only one.",
            ),
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                expose_value=False,
                callback=_take_json,
                help="Print JSON instead of tables.",
            ),
        ]


class CommandOfAll(RekindleCommand):
    """One that concerns no single project."""

    of_a_project = False


class RekindleGroup(click.Group):
    """A group of such commands."""

    command_class = RekindleCommand


RekindleGroup.group_class = RekindleGroup


class Root(RekindleGroup):
    """The outermost group: here errors end, as a line on stderr and an exit code."""

    #: The daily work first.
    order = (
        *("next", "submit", "session", "draft", "take-up", "leases", "submission"),
        *("rounds", "report", "segment", "project", "seeds", "cases"),
    )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.order, *sorted(set(self.commands) - set(self.order))]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RekindleError as error:
            tell(error)
            ctx.exit(exit_code(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            click.echo(f"error: {name}{error.strerror or error}", err=True)
            ctx.exit(1)


def _take_project(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None and isinstance(ctx.obj, Session):
        ctx.obj.project_name = value


def _take_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.obj, Session):
        ctx.obj.as_json = True
