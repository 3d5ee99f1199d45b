"""`python -m bench`: measure, print tables, write JSON. Nothing is asserted."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.measure import Row, Subject

#: Each is a module with `measure`, loaded when it is its turn.
SUBJECTS = ("prediction", "volumes", "formats", "transfer", "scheduler", "stores", "training", "triton")


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 where a subject could not be measured."""
    # Children start from this module: what they do not need is imported where it is used.
    from bench.report import machine, print_table, write_json

    asked = _parser().parse_args(arguments)
    chosen = asked.only or SUBJECTS
    before = machine()
    rows: dict[str, list[Row]] = {}
    failed: dict[str, str] = {}
    for name in chosen:
        began = time.monotonic()
        try:
            rows[name] = _measure(name, asked)
        except Exception as error:  # the other subjects are still worth measuring
            traceback.print_exc()
            failed[name] = f"failed: {error}"
            continue
        print_table(f"{name} ({time.monotonic() - began:.0f} s)", rows[name])
    missing = failed | {name: "not asked for" for name in SUBJECTS if name not in chosen}
    if "prediction" in rows and not asked.full:
        missing["prediction with preset paper"] = "only with --full"
    write_json(asked.out, before, rows, missing, quick=asked.quick)
    for name, why in missing.items():
        print(f"not measured: {name} ({why})")
    print(f"written: {asked.out}")
    return 1 if failed else 0


def _measure(name: str, asked: argparse.Namespace) -> list[Row]:
    from bench.measure import Options

    subject: Subject = import_module(f"bench.{name}").measure
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the results, so that files are on a disk and not in memory, as /tmp may be.
    with tempfile.TemporaryDirectory(dir=asked.out.parent, prefix=".bench-") as folder:
        return subject(Options(quick=asked.quick, full=asked.full, folder=Path(folder).resolve()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="this subject; may be given again")
    parser.add_argument("--quick", action="store_true", help="small inputs, few repeats: whether everything works")
    parser.add_argument("--full", action="store_true", help="the paper's network too: minutes, several GB of memory")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"), help="file for the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
