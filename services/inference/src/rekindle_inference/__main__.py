"""Starts the inference service: ``python -m rekindle_inference``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rekindle_inference.settings import Settings


def main() -> int:
    """Serve until a signal, or migrate; the exit code."""
    from rekindle_servicekit.arguments import run_command

    from rekindle_inference.settings import Settings

    return run_command("inference", "The inference service.", Settings, serve=_run, migrate=_migrate)


def _migrate(settings: Settings) -> None:
    from rekindle_inference.state import State

    State(settings.database_url).close()


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
