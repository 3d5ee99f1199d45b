"""Options of a policy's rules, and a policy in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, get_args

import click

from rekindle.config import ORDERINGS, HeldOut, Policy, ScheduleName, TrainingWindow
from rekindle.errors import InvalidInput
from rekindle.vocabulary import Weekday

Function = TypeVar("Function", bound=Callable[..., Any])


def _rule(*names: str, help: str, default: str | None = None, **attributes: Any) -> Callable[[Function], Function]:
    """An option of one rule, None where it is not given; `default` is what the server takes then."""
    told = "" if default is None else f"  [server's default: {default}]"
    return click.option(*names, default=None, help=help + told, **attributes)


_POSITIVE = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    _rule("--sizes", metavar="N,N,..", help="Cases per round, in order; the last number repeats."),
    _rule(
        "--geometric", metavar="FIRST,FACTOR", help="Growing rounds: 4,1.5 gives 4, 6, 9, ... cases.", default="15,2"
    ),
    _rule(
        "--minutes-per-round",
        type=_POSITIVE,
        metavar="MINUTES",
        help="As many cases per round as fit these minutes of correction.",
    ),
    _rule("--ordering", type=click.Choice(ORDERINGS), help="Which cases come first.", default="easy-first"),
    _rule(
        "--candidate-pool",
        type=click.IntRange(min=0),
        metavar="N",
        help="Cases that get a coarse label before a round opens; 0: all of them.",
        default="0",
    ),
    _rule(
        "--held-out",
        metavar="N|SHARE",
        help="Cases held out to measure the model, never to train it: a number (5) or a share of the patients (0.2).",
        default="0.1",
    ),
    _rule(
        "--held-out-schedule",
        type=click.Choice(get_args(ScheduleName)),
        help="When the held-out cases are labelled.",
        default="interleaved",
    ),
    _rule(
        "--preset",
        metavar="NAME",
        help="Networks and length of training: paper or native on a GPU, cpu, demo, tiny.",
        default="cpu",
    ),
    _rule("--recipe", type=click.Choice(["default", "paper"]), help="How each round trains.", default="default"),
    _rule("--seed", type=int, metavar="N", help="Seed of all randomness.", default="0"),
    _rule(
        "--lease-minutes",
        type=_POSITIVE,
        metavar="MINUTES",
        help="How long a case stays yours without a sign of life.",
        default="60",
    ),
    _rule(
        "--review/--no-review",
        "review_required",
        default="false",
        help="Whether a label counts only once a reviewer has accepted it.",
    ),
    _rule(
        "--review-own/--no-review-own",
        "review_own",
        default="false",
        help="Whether reviewers may review their own labels, where a review is required.",
    ),
    _rule(
        "--detached-days",
        "detached_lease_days",
        type=click.FloatRange(min=0, min_open=True, max=30),
        metavar="DAYS",
        help="How long a case that was taken along offline stays yours.",
        default="7",
    ),
    _rule(
        "--margin-dice",
        type=click.FloatRange(0, 1),
        metavar="DICE",
        help="A new model may be worse than the serving one by at most this Dice, per organ.",
        default="0.02",
    ),
    _rule(
        "--min-held-out-cases",
        type=click.IntRange(min=1),
        metavar="N",
        help="Number of labelled held-out cases from which on they decide whether a new model serves.",
        default="2",
    ),
    _rule(
        "--training-window",
        metavar="[DAYS ]FROM-TO ZONE",
        help="When training may run: 'mon,tue 20:00-06:00 Europe/Berlin', or none for any time.",
        default="none",
    ),
    _rule(
        "--gpu-seconds",
        "gpu_seconds_budget",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="GPU seconds that all training may take; 0: as many as it takes.",
        default="0",
    ),
)


def policy_options(function: Function) -> Function:
    """Adds the options of a policy to a command, which takes them as keywords."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def changed_policy(policy: Policy, options: dict[str, Any]) -> Policy:
    """`policy` with the given options in place; options that are None keep what is there."""
    given = {name: value for name, value in options.items() if value is not None}
    sizing = [name for name in ("sizes", "geometric", "minutes_per_round") if name in given]
    if len(sizing) > 1:
        raise InvalidInput("give one of --sizes, --geometric and --minutes-per-round")
    if sizing:
        policy = replace(policy, sizes=None, geometric=None, minutes_per_round=None)
    if "sizes" in given:
        given["sizes"] = _numbers("--sizes", given["sizes"], int)
    if "geometric" in given:
        given["geometric"] = _growth(given["geometric"])
    if "training_window" in given:
        given["training_window"] = _window(given["training_window"])
    held_out = _held_out(policy.held_out, given.pop("held_out", None), given.pop("held_out_schedule", None))
    return replace(policy, held_out=held_out, **given)


def describe_policy(policy: Policy) -> list[tuple[str, object]]:
    """A policy as the service answered it, in words, field by field."""
    held_out = policy.held_out
    if held_out.number is not None:
        share = f"{held_out.number} cases, {held_out.schedule}"
    elif held_out.fraction is not None:
        share = f"{held_out.fraction:.0%} of the patients, {held_out.schedule}"
    else:
        share = "none"
    return [
        ("rounds", _sizing(policy)),
        ("ordering", policy.ordering),
        ("coarse labels", f"of {policy.candidate_pool or 'all'} cases before a round opens"),
        ("held out", share),
        ("training", f"preset {policy.preset}, recipe {policy.recipe}, seed {policy.seed}"),
        ("trains", _limits(policy)),
        ("promotion", _promotion(policy)),
        ("a case is yours for", _lease(policy)),
        ("reviews", _reviews(policy)),
    ]


def _lease(policy: Policy) -> str:
    return f"{policy.lease_minutes or 0:.0f} min; offline {policy.detached_lease_days or 0:g} days"


def _promotion(policy: Policy) -> str:
    least = policy.min_held_out_cases
    return f"at most {policy.margin_dice or 0:.3f} Dice worse per organ, by held-out cases once {least} are labelled"


def _limits(policy: Policy) -> str:
    when, budget = window_words(policy.training_window), policy.gpu_seconds_budget
    return f"{when}, on at most {budget:g} GPU seconds" if budget else when


def window_words(window: TrainingWindow | None) -> str:
    """When training may run."""
    if window is None:
        return "at any time"
    days = f"{', '.join(window.days)} " if window.days else ""
    return f"{days}{window.start} to {window.end} {window.time_zone}"


def _window(given: str) -> TrainingWindow | None:
    if given.strip().lower() == "none":
        return None
    *days, hours, zone = given.split() if len(given.split()) in (2, 3) else ("", "")
    start, _, end = hours.partition("-")
    if not end:
        raise InvalidInput(
            f"--training-window {given!r}: write days, if not all, hours and a time zone, "
            "as in 'mon,tue 20:00-06:00 Europe/Berlin', or none"
        )
    names = [name for part in days for name in part.lower().split(",")]
    return TrainingWindow(start=start, end=end, time_zone=zone, days=tuple(_day(name) for name in names))


def _day(given: str) -> Weekday:
    for name in Weekday:
        if len(given) >= 3 and name.startswith(given):
            return name
    days = ", ".join(day[:3] for day in Weekday)
    raise InvalidInput(f"--training-window: {given!r} is not a day of the week; write {days}")


def _reviews(policy: Policy) -> str:
    if not policy.review_required:
        return "none required"
    return "required, also of one's own" if policy.review_own else "required, by somebody else"


def _sizing(policy: Policy) -> str:
    if policy.sizes is not None:
        return f"{', '.join(map(str, policy.sizes))} cases, the last repeats"
    if policy.geometric is not None:
        first, factor = policy.geometric
        return f"{first} cases, growing by {factor:g} each round"
    if policy.minutes_per_round is not None:
        return f"as many cases as fit {policy.minutes_per_round:g} min"
    return "as the service sets them"


def _numbers(option: str, given: str, kind: type[int] | type[float]) -> list[Any]:
    try:
        return [kind(part) for part in given.split(",")]
    except ValueError:
        raise InvalidInput(f"{option} {given!r}: give numbers with commas between them") from None


def _growth(given: str) -> tuple[int, float]:
    numbers = _numbers("--geometric", given, float)
    if len(numbers) != 2 or numbers[0] != int(numbers[0]):
        raise InvalidInput(f"--geometric {given!r}: give the first round's cases and a factor, as in 4,1.5")
    return int(numbers[0]), numbers[1]


def _held_out(policy: HeldOut, size: str | None, schedule: ScheduleName | None) -> HeldOut:
    if schedule is not None:
        policy = replace(policy, schedule=schedule)
    if size is None:
        return policy
    try:
        if "." in size:
            return replace(policy, number=None, fraction=float(size))
        return replace(policy, number=int(size), fraction=None)
    except ValueError:
        raise InvalidInput(f"--held-out {size!r}: give a number (5) or a share (0.2)") from None
