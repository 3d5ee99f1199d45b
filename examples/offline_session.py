"""Cases to take along: fetched while there is a network, corrected without, handed in later.

    python examples/offline_session.py take FOLDER --minutes 90
    ... each FOLDER/<case> has image.nii.gz and coarse.nii.gz; save mask.nii.gz beside them ...
    python examples/offline_session.py hand-in FOLDER

A mask may come with label.json: {"statuses": {"spleen": "absent"}, "minutes": 7.5}. Handing in again sends what is new.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import rekindle
from rekindle import offline
from rekindle.projects import Project
from rekindle.records import NoCase


def choose(client: rekindle.Client, name: str | None) -> Project:
    """The project of that name; the first one without a name."""
    return next(project for project in client.projects() if name in (None, project.name))


def take(project: Project, folder: Path, minutes: float) -> int:
    """Leases as many cases as fit the minutes, for as long as the policy lets people be away."""
    session = project.session(minutes, detached=True, tool="offline example")
    if isinstance(session, NoCase):
        print(f"nothing to take along: {session.message}")
        return 1
    cases = session.save(folder)
    until = f"{session.expires:%d %b %H:%M}" if session.expires else "handed in"
    print(f"{len(cases)} cases, about {session.predicted_minutes:.0f} min, yours until {until}:")
    for case in cases:
        print(f"  {case}")
    return 0


def hand_in(client: rekindle.Client, folder: Path) -> int:
    """Sends every mask that was not sent yet; what came too late is kept as a draft for a reviewer."""
    done = [*offline.hand_in(client, folder)]
    for one in done:
        print(f"{one.case_id}: {one.outcome.replace('-', ' ')}{f' ({one.reason})' if one.reason else ''}")
    return 0 if all(one.outcome.startswith("handed-in") for one in done) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Work on cases without the service.")
    parser.add_argument("what", choices=["take", "hand-in"], help="fetch cases, or send what has a mask")
    parser.add_argument("folder", type=Path, help="where the cases lie meanwhile")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long you mean to work (%(default)g)")
    parser.add_argument("--project", help="its name; the first one unless given")
    parser.add_argument("--address", default="127.0.0.1:50051", help="where the scheduler listens (%(default)s)")
    asked = parser.parse_args(arguments)
    # A hospital's guest network breaks uploads: pieces survive it.
    with rekindle.connect(asked.address, uploads="pieces") as client:
        if asked.what == "take":
            return take(choose(client, asked.project), asked.folder, asked.minutes)
        return hand_in(client, asked.folder)


if __name__ == "__main__":
    raise SystemExit(main())
