"""Options that say how the services are reached and who calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)


def _option(name: str, *, help: str, env: str, **attributes: Any) -> Callable[[Function], Function]:
    return click.option(name, help=f"{help}  [env var: {env}]", **attributes)


_OPTIONS = (
    _option("--tls", is_flag=True, default=None, help="Speak TLS, trusting the usual authorities.", env="REKINDLE_TLS"),
    _option("--ca", type=_FILE, help="Speak TLS, trusting the authorities in this PEM file.", env="REKINDLE_CA"),
    _option("--certificate", type=_FILE, help="PEM file of your client certificate.", env="REKINDLE_CERTIFICATE"),
    _option("--key", type=_FILE, help="PEM file of the certificate's key.", env="REKINDLE_KEY"),
    _option(
        "--server-name",
        metavar="NAME",
        help="Name in the services' certificate, where it differs from the address.",
        env="REKINDLE_SERVER_NAME",
    ),
    _option(
        "--token-file",
        type=_FILE,
        help="File that holds your token.",
        env="REKINDLE_TOKEN_FILE; the token itself: REKINDLE_TOKEN",
    ),
)


def access_options(command: Function) -> Function:
    """Adds the options. What is not given comes from the environment, as in `Client.connect`.

    There is no option for the token itself: whoever lists processes would read it.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
