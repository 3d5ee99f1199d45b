"""What stands between a PACS and Rekindle: studies in, DICOM SEG out, corrections after them.

    python examples/pacs_push.py push STUDY_FOLDER [--priority stat]
    python examples/pacs_push.py watch OUT --send "storescu pacs.example 104 {path}"

`push` takes a study apart and asks for its images to be segmented; it returns at once, and pushing the same study again
asks for nothing twice. `watch` follows the project's results, for ever: the model's mask first, then the correction of
a radiologist, which takes its place. It writes down how far it came, so it may be stopped and started at any time.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import rekindle
from rekindle.errors import DeadlineExceeded
from rekindle.mirror import ResultFolder
from rekindle.projects import Project
from rekindle.results import Result


def choose(client: rekindle.Client, name: str | None) -> Project:
    """The project of that name; the first one without a name."""
    return next(project for project in client.projects() if name in (None, project.name))


def push(project: Project, study: Path, priority: str) -> int:
    """Sends a folder of DICOM files, several series in any order, and asks for each image's mask."""
    asked_for = 0
    for series in project.upload_study(study):
        if not series.volume_id:
            print(f"left out a series ({series.modality or 'not DICOM'}): {series.message}")
            continue
        asked = project.segment(
            series.volume_id,
            priority=priority,  # type: ignore[arg-type]
            request_id=f"push-{series.volume_id}",
        )
        print(f"image {series.volume_id}: {asked.state}")
        asked_for += 1
    return 0 if asked_for else 1


def describe(result: Result, path: Path | None) -> str:
    """One line for a log: no name, no number of a patient."""
    if path is None:
        return f"image {result.volume_id}: {'taken back' if result.retracted else 'no mask'} ({result.origin})"
    left_out = ", ".join(abstention.organ_id for abstention in result.abstentions)
    doubt = f", without {left_out}, which the model is not sure of" if left_out else ""
    return f"image {result.volume_id}: {result.origin} mask{doubt}"


def watch(project: Project, out: Path, send: str | None, seconds: float | None) -> int:
    """Keeps one SEG per image in `out`, the one that stands, and hands each new one to `send`."""
    folder = ResultFolder(out, "dicom-seg")
    try:
        for result in project.results(after=folder.cursor, timeout_s=seconds):
            path = folder.keep(result)
            print(describe(result, path), flush=True)
            if send and path is not None:
                subprocess.run([word.format(path=path) for word in shlex.split(send)], check=True)
    except DeadlineExceeded:
        pass  # the seconds are over
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Segment DICOM studies and fetch the masks.")
    parser.add_argument("--project", help="its name; the first one unless given")
    parser.add_argument("--address", default="127.0.0.1:50051", help="where the scheduler listens (%(default)s)")
    steps = parser.add_subparsers(dest="step", required=True)
    pushing = steps.add_parser("push", help="send a study")
    pushing.add_argument("study", type=Path, help="folder with the DICOM files of a study")
    pushing.add_argument(
        "--priority", choices=["stat", "routine", "batch"], default="routine", help="stat pauses all else"
    )
    watching = steps.add_parser("watch", help="fetch masks as they come")
    watching.add_argument("out", type=Path, help="folder for the masks")
    watching.add_argument("--send", help="a command with {path} in it, for each new SEG")
    watching.add_argument("--seconds", type=float, help="stop after so long")
    asked = parser.parse_args(arguments)
    with rekindle.connect(asked.address) as client:
        project = choose(client, asked.project)
        if asked.step == "push":
            return push(project, asked.study, asked.priority)
        return watch(project, asked.out, asked.send, asked.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
