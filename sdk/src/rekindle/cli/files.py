"""Scans in folders."""

from __future__ import annotations

import re
from pathlib import Path

from rekindle.errors import InvalidInput

SUFFIXES = (".nii.gz", ".nii")


def stem(path: Path) -> str:
    """The file's name without .nii or .nii.gz."""
    return next((path.name.removesuffix(end) for end in SUFFIXES if path.name.endswith(end)), path.name)


def scans_in(folder: Path) -> list[Path]:
    """The NIfTI files of a folder by name. Raises InvalidInput where there is none."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    )
    if not found:
        raise InvalidInput(f"{folder} holds no NIfTI files (.nii or .nii.gz)")
    return found


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """(image, label) of a folder with images/ and labels/. Raises InvalidInput naming images without a label."""
    labels = {stem(path): path for path in scans_in(folder / "labels")}
    images = scans_in(folder / "images")
    missing = [path.name for path in images if stem(path) not in labels]
    if missing:
        raise InvalidInput(f"no label of the same name in {folder / 'labels'} for: {', '.join(missing)}")
    return [(path, labels[stem(path)]) for path in images]


def group_keys(paths: list[Path], pattern: str | None) -> list[str]:
    """What `pattern` finds in each name (its first group where it has one); all empty without a pattern."""
    if pattern is None:
        return ["" for _ in paths]
    try:
        compiled = re.compile(pattern)
    except re.error as failure:
        raise InvalidInput(f"--group-from {pattern!r} is no regular expression: {failure}") from None
    keys: list[str] = []
    for path in paths:
        match = compiled.search(stem(path))
        if match is None:
            raise InvalidInput(f"--group-from {pattern!r} finds nothing in the name {path.name}")
        keys.append(match[1] if compiled.groups else match[0])
    return keys
