"""Starts the inference service: ``python -m rekindle_inference``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rekindle_inference.settings import Settings


def main() -> int:
    """Serve until a signal, or migrate; 0, or 2 where the settings are wrong."""
    import logging

    from rekindle.errors import RekindleError
    from rekindle_servicekit.arguments import read_arguments
    from rekindle_servicekit.logs import install_logging

    from rekindle_inference.settings import Settings

    arguments = read_arguments("rekindle_inference", "The inference service.", Settings)
    install_logging("inference")
    try:
        settings = Settings.load()
        install_logging("inference", level=settings.log_level)
        if arguments.command == "migrate":
            _migrate(settings)
        else:
            _run(settings)
    except RekindleError as error:
        logging.getLogger(__name__).error("%s", error.message, extra={"action": "start.refused"})
        return 2
    return 0


def _migrate(settings: Settings) -> None:
    from rekindle_inference.adapters.sql import SqlState

    SqlState(settings.database_url).close()


def _run(settings: Settings) -> None:
    from rekindle_inference.adapters.sandbox import start_forkserver

    # Before grpc is imported and starts threads: what the children fork from must have neither.
    start_forkserver()
    import asyncio

    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from rekindle_servicekit.server import serve

    from rekindle_inference.service import build_service

    service = build_service(settings)
    try:
        await serve(service.server, service.background)
    finally:
        service.close()


if __name__ == "__main__":
    sys.exit(main())
