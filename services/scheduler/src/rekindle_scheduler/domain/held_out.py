"""Which cases are held out for evaluation: decided by seed and patient, never by ids that a run makes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rekindle.vocabulary import Digest

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.ids import CaseId
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.random_draws import draw


def group_of(group_key: str, image_digest: Digest) -> str:
    """What joins the cases of one patient; a case without a group key is a group of its own."""
    return f"group:{group_key}" if group_key else f"image:{image_digest}"


def held_out_draw(seed: int, group_key: str, image_digest: Digest) -> float:
    """The group's draw in [0, 1): below the policy's fraction it is held out; also the order of labelling."""
    return draw(seed, "held-out", group_of(group_key, image_digest))


def held_out_at_registration(policy: Policy, group_key: str, image_digest: Digest) -> bool:
    """Whether a new case is held out. False where the policy draws a number: that waits for the close."""
    fraction = policy.held_out.fraction
    return fraction is not None and held_out_draw(policy.training.seed, group_key, image_digest) < fraction


def held_out_at_close(
    policy: Policy, cases: Sequence[Case], trained: frozenset[CaseId] = frozenset()
) -> frozenset[CaseId]:
    """The cases drawn when registration is closed: whole groups by their draw, while they fit the number.

    `cases` are all of the project's, `trained` those with a label in a snapshot, which may not count any more.
    A group with one of these, with a labelled case or with one in review is passed over: it was trained on, or
    may be at any moment. The last group that could be drawn stays in training. Empty where there is a fraction.
    """
    number = policy.held_out.number
    if not number:
        return frozenset()
    groups: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[group_of(case.group_key, case.image_digest)].append(case)
    untouched = [group for group in groups.values() if not any(_is_touched(case, trained) for case in group)]
    drawable = untouched if len(untouched) < len(groups) else in_draw_order(policy, untouched)[:-1]
    drawn: list[CaseId] = []
    for group in in_draw_order(policy, drawable):
        if len(drawn) + len(group) <= number:
            drawn.extend(case.case_id for case in group)
    return frozenset(drawn)


def _is_touched(case: Case, trained: frozenset[CaseId]) -> bool:
    return case.submission_id is not None or case.pending_submission_id is not None or case.case_id in trained


def in_draw_order(policy: Policy, groups: Iterable[Sequence[Case]]) -> list[Sequence[Case]]:
    """Groups by their draw; ties, which do not happen by chance, by image."""
    seed = policy.training.seed

    def key(group: Sequence[Case]) -> tuple[float, str]:
        first = group[0]
        return held_out_draw(seed, first.group_key, first.image_digest), min(c.image_digest for c in group)

    return sorted(groups, key=key)
