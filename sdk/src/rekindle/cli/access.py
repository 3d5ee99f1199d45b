"""Options that say how the services are reached and who calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--tls", is_flag=True, default=None, help="Speak TLS, trusting the usual authorities. [REKINDLE_TLS]"),
    click.option("--ca", type=_FILE, help="Speak TLS, trusting the authorities in this PEM file. [REKINDLE_CA]"),
    click.option("--certificate", type=_FILE, help="PEM file of your client certificate. [REKINDLE_CERTIFICATE]"),
    click.option("--key", type=_FILE, help="PEM file of its key. [REKINDLE_KEY]"),
    click.option(
        "--server-name", metavar="NAME", help="Name in the services' certificate, where it is not the address's."
    ),
    click.option(
        "--token-file", type=_FILE, help="File that holds your token. [REKINDLE_TOKEN_FILE; a token: REKINDLE_TOKEN]"
    ),
)


def access_options(command: Function) -> Function:
    """Adds the options. What is not given comes from the environment, as in `Client.connect`.

    There is no option for the token itself: whoever lists processes would read it.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
