"""The SDK's two floors: what servers share with the client, and the client itself."""

from __future__ import annotations

import pkgutil
from configparser import ConfigParser
from pathlib import Path

import rekindle

#: Modules that servers may import; `api` is generated, and `_channels` is a part of `credentials`.
SHARED = {
    *("api", "convert", "credentials", "errors", "hosts", "status", "tokens", "vocabulary", "watched_files"),
    "_channels",
}


def test_every_module_is_on_one_of_the_two_floors() -> None:
    """A new module is either shared, or forbidden to servers by the lint contract."""
    contracts = ConfigParser()
    contracts.read(Path(__file__).parents[3] / ".importlinter")
    forbidden = contracts["importlinter:contract:sdk-floor"]["forbidden_modules"].split()
    client = {module.removeprefix("rekindle.") for module in forbidden}
    modules = {module.name for module in pkgutil.iter_modules(rekindle.__path__)}
    assert (modules, set()) == (client | SHARED, client & SHARED)
