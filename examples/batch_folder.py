"""Segments every scan of a folder with the project's active model.

    python examples/batch_folder.py SCANS OUT [--project NAME]

Writes OUT/<scan> for each scan and OUT/summary.csv. Run again it does only what is missing.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import rekindle
from rekindle.client import Segmentation
from rekindle.errors import InvalidInput
from rekindle.projects import Project

#: Below this soft Dice confidence somebody should look at the mask.
DOUBTFUL = 0.8
COLUMNS = ("scan", "organ", "ml", "confidence", "doubtful")


def choose(client: rekindle.Client, name: str | None) -> Project:
    """The project of that name; the first one without a name."""
    return next(project for project in client.projects() if name in (None, project.name))


def rows(scan: str, result: Segmentation) -> Iterator[tuple[object, ...]]:
    """One row per organ: its volume, and how sure the model is of it."""
    for organ in result.quality:
        confidence = organ.soft_dice_confidence  # None where nothing was found
        doubtful = confidence is None or confidence < DOUBTFUL
        yield scan, organ.organ_id, round(organ.predicted_ml, 1), confidence, "yes" if doubtful else "no"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Segment every scan of a folder.")
    parser.add_argument("scans", type=Path, help="folder with the scans")
    parser.add_argument("out", type=Path, help="folder for the masks")
    parser.add_argument("--project", help="its name; the first one unless given")
    parser.add_argument("--address", default="127.0.0.1:50051", help="where the scheduler listens (%(default)s)")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    refused = 0
    with rekindle.connect(asked.address) as client, (asked.out / "summary.csv").open("a", newline="") as file:
        table = csv.writer(file)
        if file.tell() == 0:
            table.writerow(COLUMNS)
        project = choose(client, asked.project)
        for scan in sorted(asked.scans.glob("*.nii*")):
            mask = asked.out / scan.name
            if mask.exists():
                continue
            try:
                result = client.segment(scan, project_id=project.id)
            except InvalidInput as error:  # this scan is at fault; a service that is away ends the program
                print(f"{scan.name}: {error.message}")
                refused += 1
                continue
            table.writerows(rows(scan.name, result))
            file.flush()
            result.mask.save(mask)  # last: a scan with a mask is done
            print(f"{scan.name}: done")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
