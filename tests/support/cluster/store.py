"""Secrets and ConfigMaps, and what pods are given of them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Manifest = Mapping[str, Any]


class CannotStart(Exception):
    """What keeps a container from being started, as the events of its pod would say."""


class Store:
    """The objects of one namespace that pods refer to by name; CannotStart where one is missing."""

    def __init__(self) -> None:
        self._data: dict[tuple[str, str], dict[str, bytes]] = {}

    def put(self, kind: str, name: str, data: Mapping[str, bytes | str]) -> None:
        self._data[kind, name] = {
            key: value.encode() if isinstance(value, str) else value for key, value in data.items()
        }

    def apply(self, manifest: Manifest) -> None:
        """A Secret or a ConfigMap."""
        coded = {key: base64.b64decode(value) for key, value in manifest.get("binaryData", {}).items()}
        plain = manifest.get("data", {})
        if manifest["kind"] == "Secret":
            coded |= {key: base64.b64decode(value) for key, value in plain.items()}
            plain = manifest.get("stringData", {})
        self.put(manifest["kind"], manifest["metadata"]["name"], {**coded, **plain})

    def of(self, kind: str, name: str) -> Mapping[str, bytes]:
        try:
            return self._data[kind, name]
        except KeyError:
            raise CannotStart(f"there is no {kind} {name}") from None

    def value(self, kind: str, name: str, key: str) -> bytes:
        try:
            return self.of(kind, name)[key]
        except KeyError:
            raise CannotStart(f"{kind} {name} has no key {key}") from None

    def environment(self, container: Manifest, base: Mapping[str, str]) -> dict[str, str]:
        """`base`, then what the container asks for, with $(NAME) put in."""
        found = dict(base)
        for source in container.get("envFrom", ()):
            (kind, reference), *_ = _references(source)
            found |= {key: value.decode() for key, value in self.of(kind, reference["name"]).items()}
        for item in container.get("env", ()):
            found[item["name"]] = (
                self._referred(item) if "valueFrom" in item else expanded(item.get("value", ""), found)
            )
        return found

    def _referred(self, item: Manifest) -> str:
        for kind, reference in _references(item["valueFrom"]):
            return self.value(kind, reference["name"], reference["key"]).decode()
        raise CannotStart(f"the value of {item['name']} comes from nothing that is known here")

    def write(self, kind: str, name: str, folder: Path, *, mode: int, group: int) -> None:
        """As a kubelet does: links to files in a folder that is replaced as a whole."""
        (files := folder / "..2026_01_01").mkdir(parents=True)
        for key, value in self.of(kind, name).items():
            (files / key).write_bytes(value)
            os.chown(files / key, 0, group)
            (files / key).chmod(mode)
            (folder / key).symlink_to(f"..data/{key}")
        (folder / "..data").symlink_to(files.name)


def _references(source: Manifest) -> Iterable[tuple[str, Manifest]]:
    for field, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
        reference = source.get(f"{field}KeyRef") or source.get(f"{field}Ref")
        if reference:
            yield kind, reference


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) stands for a variable that is known; anything else stays."""
    return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), text)
