"""The command line that every service has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pydantic_settings import BaseSettings

from rekindle_servicekit.settings import settings_table


def read_arguments(
    module: str, what: str, settings: type[BaseSettings], arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """`command` is ``serve`` or ``migrate``; SystemExit with words where it is neither, and for ``--help``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=f"{what} Settings come from the environment:\n\n{settings_table(settings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "migrate"],
        default="serve",
        help="serve (what it does without a command), or bring the database's schema up to date and end",
    )
    return parser.parse_args(arguments)
