"""The probe of containers: asks the health port, from a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from rekindle_servicekit import probe

Stack = Callable[..., Any]


async def _echo(request: bytes, _: Any) -> bytes:
    return request


def test_probe_follows_health(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """0 while the server serves, 1 with the reason once it does not, and 1 when nobody listens any more."""

    async def scenario() -> list[int]:
        async with stack(_echo) as running:
            address = str(running.server.health_address)
            codes = [await asyncio.to_thread(probe.main, [address])]
            await running.server.set_serving("", False)
            codes.append(await asyncio.to_thread(probe.main, [address]))
        return [*codes, await asyncio.to_thread(probe.main, [address])]

    assert [0, 1, 1] == asyncio.run(scenario())
    told = capsys.readouterr().err
    assert "NOT_SERVING" in told
    assert "UNAVAILABLE" in told


def test_probe_finds_its_own_address(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address it asks where this container's setting says, on the machine itself."""

    async def scenario() -> int:
        async with stack(_echo) as running:
            port = str(running.server.health_address).rpartition(":")[2]
            monkeypatch.setenv("REKINDLE_TRAINER_HEALTH_ADDRESS", f"0.0.0.0:{port}")
            return await asyncio.to_thread(probe.main, [])

    assert 0 == asyncio.run(scenario())


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["127.0.0.1:1", "127.0.0.1:2"]])
def test_probe_says_how_it_is_used(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody says whom to ask it says so, and does not pass for healthy."""
    monkeypatch.delenv("REKINDLE_TRAINER_HEALTH_ADDRESS", raising=False)
    assert 2 == probe.main(arguments)
    assert "usage" in capsys.readouterr().err
