"""Folders of cases that are worked on without the service: the names of their files, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rekindle._names import file_name
from rekindle.formats import MASK_SUFFIXES, SUFFIXES, FormatName
from rekindle.leases import Lease

IMAGE, COARSE, LEASE, SUBMISSION = "image.nii.gz", "coarse.nii.gz", "lease.json", "submission.json"
LABEL, SESSION, ELAPSED, BOOKED = "label.json", "session.json", "elapsed.json", "booked.json"
MASKS = tuple(f"mask{ending}" for ending in MASK_SUFFIXES)


def write_case(folder: Path, lease: Lease) -> Path:
    """Makes the case's folder in `folder`; lease.json comes last, so that a folder with it is complete."""
    target = folder / file_name(lease.case.id)
    target.mkdir(parents=True, exist_ok=True)
    lease.image().save(target / IMAGE)
    coarse = lease.standing_label() or lease.coarse_label()
    if coarse is not None:
        coarse.save(target / COARSE)
    (target / LEASE).write_text(lease.ticket())
    return target


def write_session(folder: Path, description: Mapping[str, object]) -> None:
    """Writes session.json: the session and its cases, for people and for `rekindle session hand-in`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SESSION).write_text(json.dumps(description, indent=2))


def mask_in(folder: Path) -> Path | None:
    """The corrected mask; None until there is one."""
    return next((folder / name for name in MASKS if (folder / name).is_file()), None)


def coarse_in(folder: Path) -> Path | None:
    """The label that came with the case, in any format; None if it came without."""
    named = (folder / f"{COARSE.partition('.')[0]}{ending}" for ending in MASK_SUFFIXES)
    return next((path for path in named if path.is_file()), None)


def in_format(name: str, format: FormatName) -> str:
    """The name that a file of the folder has in another format: image.nii.gz, image.nrrd."""
    return name.partition(".")[0] + SUFFIXES[format][0]
