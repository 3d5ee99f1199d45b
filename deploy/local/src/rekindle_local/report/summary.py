"""The report's first paragraph, in plain words."""

from rekindle_local.report.model import Report, RoundRow


def summary(report: Report) -> str:
    """Three to five sentences on what was labelled, what it cost, and what the model is worth now."""
    return " ".join(
        sentence
        for sentence in (_what(report), _quality(report), _pace(report), _cost(report), _refusals(report))
        if sentence
    )


def _what(report: Report) -> str:
    rounds = len(report.rounds) - 1
    organs = _listed(report.organs)
    heldout = report.heldout_cases
    return (
        f"{_count(report.ledger.cases, 'case')} got a corrected label of {organs}: "
        f"{report.rounds[-1].labelled_total} in {_count(rounds, 'round')}"
        + (f" and {heldout} held out to measure the models on." if heldout else ".")
    )


def _quality(report: Report) -> str:
    first, last = report.rounds[0], report.rounds[-1]
    start, end = first.dice["mean"], last.dice["mean"]
    if start is None or end is None:
        return ""
    verb = "rose" if end > start else "fell" if end < start else "went"
    organs = [f"{organ} {_score(first, organ)} to {_score(last, organ)}" for organ in report.organs]
    return (
        f"On the held-out cases the mean Dice {verb} from {start:.3f} with the igniter to {end:.3f} "
        f"({_listed(organs)})."
    )


def _pace(report: Report) -> str:
    ledger = report.ledger
    return (
        f"A case cost {ledger.minutes_per_case_first:.1f} simulated minutes in the first round "
        f"and {ledger.minutes_per_case_last:.1f} in the last."
    )


def _cost(report: Report) -> str:
    ledger, baseline = report.ledger, report.baseline
    word = "fewer" if report.saving >= 0 else "more"
    return (
        f"The whole set cost {ledger.minutes_total:.1f} simulated minutes, {abs(100 * report.saving):.0f} % "
        f"{word} than with the igniter's labels only ({baseline.minutes_no_update:.1f}); drawing every "
        f"contour from nothing would have cost {baseline.minutes_from_nothing:.1f}."
    )


def _refusals(report: Report) -> str:
    if not report.refused:
        return ""
    rounds = _listed([str(item.round) for item in report.refused])
    if len(report.refused) == 1:
        return f"The network trained in round {rounds} was refused, and the version before it went on."
    return f"The networks trained in rounds {rounds} were refused, and the versions before them went on."


def _score(row: RoundRow, organ: str) -> str:
    value = row.dice[organ]
    return "–" if value is None else f"{value:.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(items: list[str] | tuple[str, ...]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
