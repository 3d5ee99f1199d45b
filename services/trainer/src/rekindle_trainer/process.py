"""The training process: ``python -m rekindle_trainer.process --objects DIR --run RUN_ID --attempt N``.

Exit codes: 0 done, 1 crashed, 2 the spec is bad, 143 stopped by SIGTERM after a checkpoint. Codes 1 and 2 leave
``failure.json`` beside the attempt's other objects.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import torch
from rekindle.errors import AlreadyExists, RekindleError
from rekindle_imaging.errors import VolumeError
from rekindle_servicekit.objects import DirectoryObjects, Objects, PrefixedObjects

from rekindle_trainer.export import ParityError
from rekindle_trainer.run import run
from rekindle_trainer.spec import BadSpec, compact_json
from rekindle_trainer.training.loop import Diverged, RunStopped

DONE, CRASHED, BAD_SPEC, STOPPED = 0, 1, 2, 143
_log = logging.getLogger("rekindle_trainer.process")


def open_objects(location: str) -> Objects:
    """A directory, as a path or a file URL; BadSpec for anything else."""
    parsed = urlparse(location)
    if parsed.scheme == "file":
        return DirectoryObjects(Path(parsed.path))
    if parsed.scheme:
        raise BadSpec(
            "UNKNOWN_OBJECT_STORE",
            f"object stores of kind {parsed.scheme!r} are not supported: give a folder",
        )
    return DirectoryObjects(Path(location))


def main(arguments: list[str] | None = None) -> int:
    """Run one attempt; returns the exit code."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    # MONAI calls its own deprecated functions.
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    torch.set_num_threads(args.threads)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        objects = open_objects(args.objects)
        if args.prefix:
            objects = PrefixedObjects(objects, args.prefix)
    except BadSpec as error:
        _log.error("%s: %s", error.reason, error.message)
        return BAD_SPEC
    try:
        run(objects, args.run, args.attempt, stop.is_set, device=device)
    except RunStopped:
        _log.info("stopped after a checkpoint")
        return STOPPED
    except BadSpec as error:
        return _fail(objects, args, error.reason, error.message, BAD_SPEC)
    except (RekindleError, VolumeError) as error:
        return _fail(objects, args, error.reason, error.message, CRASHED)
    except Diverged as error:
        return _fail(objects, args, "DIVERGED", str(error), CRASHED)
    except ParityError as error:
        return _fail(objects, args, "PARITY", str(error), CRASHED)
    except Exception as error:
        # The message of an unforeseen error may hold anything, so only its class leaves the process' log.
        _log.exception("the training process crashed")
        return _fail(objects, args, "CRASHED", f"unexpected {type(error).__name__}; see the process' log", CRASHED)
    return DONE


def _fail(objects: Objects, args: argparse.Namespace, reason: str, message: str, code: int) -> int:
    _log.error("%s: %s", reason, message)
    with suppress(AlreadyExists):  # an attempt that was started again and failed again
        objects.put(
            f"runs/{args.run}/{args.attempt}/failure.json",
            compact_json({"reason": reason, "message": message}),
        )
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rekindle_trainer.process", description="Carry out one attempt at a run.")
    parser.add_argument("--objects", required=True, help="folder (or file URL) of the object store")
    parser.add_argument("--prefix", default="", help="prefix of all keys: the installation's id")
    parser.add_argument("--run", required=True, help="run id; its spec is runs/<run>/spec.json")
    parser.add_argument("--attempt", required=True, type=int, help="number of this attempt, from 1")
    threads = int(os.environ.get("REKINDLE_TRAINER_THREADS") or os.cpu_count() or 1)
    parser.add_argument(
        "--threads", type=int, default=threads, help="CPU threads (default: REKINDLE_TRAINER_THREADS or all)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
