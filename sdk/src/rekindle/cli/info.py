"""`rekindle info`: the servers behind the addresses."""

from __future__ import annotations

from typing import Any

import click

from rekindle.cli.failures import exit_code
from rekindle.cli.options import CommandOfAll, pass_session
from rekindle.cli.session import Session
from rekindle.errors import RekindleError
from rekindle.server_info import ServerInfo

SERVICES = ("scheduler", "inference", "trainer")


@click.command("info", cls=CommandOfAll)
@pass_session
@click.pass_context
def info(ctx: click.Context, session: Session) -> None:
    """Version, capabilities and limits of the servers.

    A server that cannot be reached is named, and the exit code is 5.
    """
    found: dict[str, ServerInfo] = {}
    failed: dict[str, RekindleError] = {}
    for service in SERVICES:
        try:
            found[service] = session.client.server_info_of(service)
        except RekindleError as error:
            failed[service] = error
    session.out.rows(
        "Servers",
        ["Service", "Version", "API", "Installation", "Can also", "Limits"],
        [_row(service, found.get(service), failed.get(service)) for service in SERVICES],
        {
            "servers": [_described(item) for item in found.values()],
            "failed": {service: error.message for service, error in failed.items()},
        },
    )
    if failed:
        for error in failed.values():
            session.out.remark(f"error: {error.message}")
        ctx.exit(max(exit_code(error) for error in failed.values()))


def _row(service: str, item: ServerInfo | None, error: RekindleError | None) -> list[object]:
    if item is None:
        return [service, "cannot be reached" if error else None, None, None, None, None]
    limits = ", ".join(f"{name} {value}" for name, value in sorted(item.limits.items()))
    version = f"{item.version} (too old)" if item.is_too_old else item.version
    return [service, version, item.api_version, item.installation_id, ", ".join(sorted(item.capabilities)), limits]


def _described(item: ServerInfo) -> dict[str, Any]:
    return {
        "service": item.service,
        "address": item.address,
        "version": item.version,
        "api_version": item.api_version,
        "capabilities": sorted(item.capabilities),
        "limits": dict(item.limits),
        "installation_id": item.installation_id,
        "server_time": item.server_time,
    }
