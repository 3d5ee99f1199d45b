"""torchrun, with the exit code of its processes: ``python -m rekindle_trainer.process.torchrun OPTIONS -m MODULE ...``.

Takes torchrun's options. torchrun itself ends with 1 whatever happened to its processes; whether a run is tried again,
and at whose cost, depends on what did.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

#: The less it tells, the later: crashed, store away, told to stop, lost the others, ended by torchrun after that.
_LEAST_TELLING = (1, 75, 143, 76, -15)
_log = logging.getLogger("rekindle_trainer.process.torchrun")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the processes of this machine; the exit code that tells most of how they ended, 128 + n for a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Torchrun would take options of the module for abbreviations of its own.
    end = given.index("-m") + 2 if "-m" in given else len(given)
    options = parse_args(given[:end])
    options.training_script_args += given[end:]
    try:
        run(options)
    except ChildFailedError as error:
        _log.error("%s", error)
        return telling_code(failure.exitcode for failure in error.failures.values())
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def telling_code(codes: Iterable[int]) -> int:
    """Of how several processes ended: a signal first, then an error of one's own, last what follows from others."""

    def order(code: int) -> tuple[bool, int]:
        known = code in _LEAST_TELLING
        return known or code >= 0, _LEAST_TELLING.index(code) + 1 if known else 0

    code = min(codes, key=order)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
