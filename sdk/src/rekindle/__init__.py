"""Thin client of Rekindle. ``import rekindle`` is cheap: what needs grpc is loaded when it is first used."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rekindle.client import Client, connect

__all__ = ["Client", "__version__", "connect"]

try:
    __version__ = version("rekindle")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0+unknown"

_LAZY = {"Client": "rekindle.client", "connect": "rekindle.client"}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
