"""`python -m rekindle_local up|demo`: all of Rekindle on one machine."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from rekindle.config import ORDERINGS
from rekindle.errors import RekindleError

from rekindle_local.demo import DemoOptions, run_demo, thread_settings
from rekindle_local.stack import SERVICES, Stack, StackOptions


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; 0 when it did what was asked, 1 with one clear line on stderr otherwise."""
    options = _parser().parse_args(arguments)
    # A polite kill takes the way of Ctrl-C, so that no service outlives the command.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.run(options)
    except RekindleError as error:
        print(f"rekindle: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("rekindle: stopped", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rekindle_local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    up = commands.add_parser("up", help="start the three services on loopback until Ctrl-C")
    up.add_argument("--state", type=Path, default=Path("var/rekindle"), help="folder for everything that is kept")
    up.add_argument("--port", type=int, default=50051, help="scheduler's port; the others take the next two")
    up.set_defaults(run=_up)
    demo = commands.add_parser("demo", help="run a whole campaign with a simulated annotator and write a report")
    demo.add_argument("--data", type=Path, help="folder with seed/ct, seed/mr and target; default: synthetic")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for report and state")
    demo.add_argument("--strategy", default="easy-first", choices=ORDERINGS, help="which cases come first")
    demo.add_argument("--seed", type=int, default=0, help="seed of everything random")
    demo.add_argument("--preset", help="networks and schedule: cpu, demo, tiny, paper")
    demo.add_argument("--recipe", default="default", help="default, or paper (from scratch each round)")
    demo.add_argument("--seed-ct", type=int, help="how many CT volumes of the seed set to use")
    demo.set_defaults(run=_demo)
    return parser


def _up(options: argparse.Namespace) -> int:
    stopping: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopping.append(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    stack = Stack(StackOptions(state=options.state, port=options.port, environment=thread_settings()))
    with stack:
        for service in SERVICES:
            print(f"{service:10} {stack.addresses[service]}")
        print(f"state      {options.state}\nCtrl-C stops the services; the next start resumes where they stopped.")
        sys.stdout.flush()
        stack.supervise(lambda: bool(stopping), lambda line: print(line, flush=True))
        print("stopping", flush=True)
    return 0


def _demo(options: argparse.Namespace) -> int:
    began = time.monotonic()

    def say(line: str) -> None:
        seconds = int(time.monotonic() - began)
        print(f"[{seconds // 60:2d}:{seconds % 60:02d}] {line}", flush=True)

    report, page = run_demo(
        DemoOptions(
            out=options.out,
            data=options.data,
            strategy=options.strategy,
            seed=options.seed,
            preset=options.preset,
            seed_ct=options.seed_ct,
            recipe=options.recipe,
        ),
        say,
    )
    first, last = report.rounds[0].dice["mean"], report.rounds[-1].dice["mean"]
    say(f"held-out Dice {_number(first)} -> {_number(last)}")
    say(
        f"{report.ledger.minutes_total:.0f} simulated minutes for {report.ledger.cases} cases; "
        f"{_saved(report.saving)} than with the igniter's labels only, "
        f"{_saved(report.saving_from_nothing)} than from nothing"
    )
    say(f"report: {page}")
    return 0


def _saved(share: float) -> str:
    return f"{abs(round(100 * share))} % {'fewer' if share >= 0 else 'more'}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
