"""The training process: ``python -m rekindle_trainer.process --objects DIR --run RUN_ID --attempt N``.

Exit codes: 0 done, 1 crashed, 2 the spec is bad, 75 the object store stayed away, 76 another process of the attempt was
lost, 143 stopped by SIGTERM after a checkpoint. Codes 1, 2 and 76 leave ``failure.json`` beside the attempt's other
objects. Where the store is a bucket, ``REKINDLE_PROCESS_OBJECTS_*`` say how to reach it. Started several times by
torchrun, the processes train together.
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

import torch
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rekindle.errors import AlreadyExists, DependencyUnavailable, InvalidInput, RekindleError
from rekindle_imaging.errors import VolumeError
from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.object_store import ObjectStoreSettings, open_store
from rekindle_servicekit.objects import DirectoryObjects, Objects, PrefixedObjects

from rekindle_trainer.domain.spec import BadSpec, compact_json
from rekindle_trainer.process.export import ParityError
from rekindle_trainer.process.retrying_objects import RetryingObjects
from rekindle_trainer.process.run import run
from rekindle_trainer.process.training.distributed import (
    ALONE,
    RankLost,
    Ranks,
    RanksDisagree,
    TorchRanks,
    leave,
    local_place,
    several,
)
from rekindle_trainer.process.training.loop import Diverged, RunStopped

DONE, CRASHED, BAD_SPEC, UNAVAILABLE, LOST, STOPPED = 0, 1, 2, 75, 76, 143
_log = logging.getLogger("rekindle_trainer.process")


class ProcessSettings(ObjectStoreSettings):
    """What the service hands down."""

    model_config = SettingsConfigDict(env_prefix="REKINDLE_PROCESS_")

    objects_directory: Path = Field(Path(), description="the service's; not used here")
    objects_patience_s: float = Field(900.0, ge=0, description="seconds to wait for an object store that is away")
    collective_timeout_s: float = Field(1800.0, gt=0, description="seconds that several processes wait for each other")


def open_objects(location: str, settings: ProcessSettings) -> Objects:
    """A directory, as a path or a file URL, or a bucket, as s3://bucket/prefix; BadSpec for anything else."""
    try:
        if "://" not in location:
            return DirectoryObjects(Path(location))
        return open_store(settings.model_copy(update={"objects_url": location}), Path())
    except InvalidInput as error:
        raise BadSpec("UNKNOWN_OBJECT_STORE", error.message) from error


def main(arguments: list[str] | None = None) -> int:
    """Run one attempt; returns the exit code."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    # MONAI calls its own deprecated functions.
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    # Those of one machine share its processors.
    torch.set_num_threads(max(1, args.threads // local_place()[1]))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        settings = ProcessSettings.load()
        objects = RetryingObjects(open_objects(args.objects, settings), settings.objects_patience_s, stop.is_set)
        if args.prefix:
            objects = PrefixedObjects(objects, args.prefix)
    except (BadSpec, InvalidInput) as error:
        _log.error("%s: %s", error.reason, error.message)
        return BAD_SPEC
    return _train(objects, args, settings, stop)


def _train(objects: Objects, args: argparse.Namespace, settings: ProcessSettings, stop: threading.Event) -> int:
    """The exit code."""
    ranks = ALONE
    try:
        device = _device(args.device)
        ranks = _meet_others(device, settings)
        run(objects, args.run, args.attempt, stop.is_set, device=device, ranks=ranks)
    except RunStopped:
        _log.info("stopped after a checkpoint")
        return STOPPED
    except BadSpec as error:
        return _fail(objects, args, error.reason, error.message, BAD_SPEC)
    except DependencyUnavailable as error:
        # Nothing could be left behind to say so.
        _log.error("%s: %s", error.reason, error.message)
        return UNAVAILABLE
    except (RekindleError, VolumeError) as error:
        return _fail(objects, args, error.reason, error.message, CRASHED)
    except Diverged as error:
        return _fail(objects, args, "DIVERGED", str(error), CRASHED)
    except ParityError as error:
        return _fail(objects, args, "PARITY", str(error), CRASHED)
    except RankLost as error:
        return _fail(objects, args, error.reason, error.message, LOST)
    except RanksDisagree as error:
        return _fail(objects, args, "RANKS_DISAGREE", str(error), CRASHED)
    except Exception as error:
        # The message of an unforeseen error may hold anything, so only its class leaves the process' log.
        _log.exception("the training process crashed")
        return _fail(objects, args, "CRASHED", f"unexpected {type(error).__name__}; see the process' log", CRASHED)
    finally:
        ranks.close()
    return DONE


def _device(wanted: str) -> str:
    """What this process computes on; of several each has a GPU of its own. BadSpec where there are too few."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cuda" or not several():
        return wanted
    place, count = local_place()
    if count > torch.cuda.device_count():
        message = f"{count} processes were started on a machine with {torch.cuda.device_count()} GPUs"
        raise BadSpec("TOO_FEW_GPUS", f"{message}: start one per GPU")
    torch.cuda.set_device(place)
    return f"cuda:{place}"


def _meet_others(device: str, settings: ProcessSettings) -> Ranks:
    if not several():
        return ALONE
    if settings.collective_timeout_s <= settings.objects_patience_s:
        raise BadSpec(
            "BAD_SETTINGS",
            "collective_timeout_s must be above objects_patience_s: the processes wait for the one that waits for the "
            "object store",
        )
    return TorchRanks(torch.device(device), settings.collective_timeout_s)


def _fail(objects: Objects, args: argparse.Namespace, reason: str, message: str, code: int) -> int:
    _log.error("%s: %s", reason, message)
    # An attempt that was started again and failed again; or the store is away by now.
    with suppress(AlreadyExists, DependencyUnavailable):
        objects.put(
            RunKeys(args.run).attempt(args.attempt).failure,
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
    leave(main())
