"""An annotation tool in one page: lease, look, edit, save drafts, submit; then the next case.

    python examples/annotation_loop.py --editor "itksnap -g {image} -s {mask}"

The editor is any program that changes {mask}; it may show {image}. A tool of your own does the same with its own
windows: `lease.image().array()` and `lease.coarse_label().array()` are the voxels, `rekindle.volumes.with_geometry`
makes a mask of an array, and `timer.touch()` belongs into its handlers of mouse and keys.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import rekindle
import SimpleITK as sitk
from rekindle.errors import InvalidInput
from rekindle.leases import Lease
from rekindle.projects import Project
from rekindle.volumes import with_geometry

LOOK_S = 0.5
#: The editor cannot tell us of mouse and keys: a saved mask is the sign that somebody was at work for so long.
IDLE_AFTER_S = 300.0


def choose(client: rekindle.Client, name: str | None) -> Project:
    """The project of that name; the first one without a name."""
    return next(project for project in client.projects() if name in (None, project.name))


def prepare(lease: Lease, folder: Path) -> tuple[Path, Path]:
    """Writes the scan, and the mask to edit: what was saved before, else the coarse label, else nothing drawn."""
    image = lease.image().save(folder / "image.nii.gz")
    saved = lease.draft()
    start = saved.mask() if saved is not None else lease.coarse_label()
    mask = folder / "mask.nii.gz"
    if start is not None:
        start.save(mask)
    else:
        scan = sitk.ReadImage(str(image))
        empty = np.zeros(scan.GetSize()[::-1], np.uint8)
        sitk.WriteImage(with_geometry(empty, scan), str(mask))
    return image, mask


def edit(lease: Lease, editor: str, image: Path, mask: Path) -> None:
    """Runs the editor until it is closed. Each mask that it saves is kept as a draft at the service."""
    command = [part.format(image=image, mask=mask) for part in shlex.split(editor)]
    lease.timer.start("editing")
    saved_at = mask.stat().st_mtime_ns
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(LOOK_S)
            if mask.stat().st_mtime_ns != saved_at and process.poll() is None:
                saved_at = mask.stat().st_mtime_ns
                lease.timer.touch()
                with suppress(InvalidInput):  # the editor is in the middle of writing it
                    lease.save_draft(mask)
    lease.timer.touch()


def statuses(project: Project, before: np.ndarray, after: np.ndarray, empty: str) -> Mapping[str, str]:
    """Per organ what was done: an organ without a voxel is absent or out of view, as the annotator says."""
    stated: dict[str, str] = {}
    for organ in project.organs:
        drawn = after == organ.label_value
        if not drawn.any():
            stated[organ.id] = empty
        else:
            stated[organ.id] = "accepted" if np.array_equal(drawn, before == organ.label_value) else "edited"
    return stated


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def annotate(project: Project, lease: Lease, editor: str, empty: str) -> None:
    """One case, from the scan to the submission."""
    lease.timer.idle_after_s = IDLE_AFTER_S
    first = [str(rank.slice) for rank in lease.ranked_slices(limit=5)]
    print(f"case {lease.case.id}: look first at slices {', '.join(first) or 'of your choice'}")
    with tempfile.TemporaryDirectory() as folder:
        image, mask = prepare(lease, Path(folder))
        coarse = lease.coarse_label()
        before = voxels(mask) * 0 if coarse is None else coarse.array()
        edit(lease, editor, image, mask)
        submission = lease.submit(mask, statuses(project, before, voxels(mask), empty))  # type: ignore[arg-type]
    print(f"case {submission.case_id}: handed in, {submission.minutes:.1f} min")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Correct one case after the other in an editor.")
    parser.add_argument(
        "--editor", required=True, help='a command with {image} and {mask}, e.g. "itksnap -g {image} -s {mask}"'
    )
    parser.add_argument(
        "--empty",
        choices=["absent", "out_of_view", "not_reviewed"],
        default="not_reviewed",
        help="what an organ without a voxel means",
    )
    parser.add_argument("--cases", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--wait", type=float, default=600.0, help="seconds to wait while a model is trained")
    parser.add_argument("--project", help="its name; the first one unless given")
    parser.add_argument("--address", default="127.0.0.1:50051", help="where the scheduler listens (%(default)s)")
    asked = parser.parse_args(arguments)
    with rekindle.connect(asked.address) as client:
        project = choose(client, asked.project)
        for _ in range(asked.cases):
            lease = project.lease_next(wait_s=asked.wait)
            if lease is None:
                print("everything is labelled")
                break
            with lease:  # renewed meanwhile, and given back if the loop is left without a submission
                annotate(project, lease, asked.editor, asked.empty)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
