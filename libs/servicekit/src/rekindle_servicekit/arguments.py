"""The command line that every service has: serve, migrate, and how a refused start ends."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from rekindle.errors import RekindleError

from rekindle_servicekit.listening import ListenSettings
from rekindle_servicekit.logs import install_logging
from rekindle_servicekit.settings import settings_table

S = TypeVar("S", bound=ListenSettings)

#: Exit code of a start that was refused: settings that are wrong, a schema that is too old, a taken port.
REFUSED = 2

_log = logging.getLogger(__name__)


def run_command(
    service: str,
    what: str,
    settings_type: type[S],
    *,
    serve: Callable[[S], None],
    migrate: Callable[[S], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the settings and carry out the command that was asked for.

    Returns the exit code: 0, or 2 with one line in the log that says why the start was refused. SystemExit for
    ``--help`` and for another command.
    """
    chosen = _parser(service, what, settings_type).parse_args(arguments)
    install_logging(service)
    try:
        settings = settings_type.load()
        install_logging(service, level=settings.log_level.upper())
        (migrate if chosen.command == "migrate" else serve)(settings)
    except RekindleError as error:
        _log.error("%s", error.message, extra={"action": "start.refused"})
        return REFUSED
    return 0


def _parser(service: str, what: str, settings_type: type[ListenSettings]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m rekindle_{service}",
        description=f"{what} Settings come from the environment:\n\n{settings_table(settings_type)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "migrate"],
        default="serve",
        help="serve (what it does without a command), or bring the database's schema up to date and end",
    )
    return parser
