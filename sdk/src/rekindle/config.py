"""What a project is made of: organs and a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.convert import duration, from_proto, names_of, number_of, to_proto
from rekindle.vocabulary import Organ as Organ
from rekindle.vocabulary import TrainingWindow

DAY_S = 86_400.0
#: Margin that goes along with `min_held_out_cases` alone: the API cannot tell a margin of 0 from one that is not set.
DEFAULT_MARGIN_DICE: Final = 0.02
_NO_WINDOW: Final = TrainingWindow(start="", end="", time_zone="")

ModalityName = Literal["CT", "MR"]
#: Name of an ordering; `ORDERINGS` has them all.
OrderingName: TypeAlias = str
#: Names of the orderings that the API has, as in "easy-first".
ORDERINGS: Final = names_of(records.Ordering)
ScheduleName = Literal["first", "interleaved", "last"]
WeekdayName = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
OrganStatusName = Literal["edited", "accepted", "absent", "out_of_view", "not_reviewed"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Which cases measure the model and never train it; None takes the service's default."""

    #: Number of cases, drawn when registration is closed. Leave None to use `fraction`.
    number: int | None = None
    #: Share of the patients, decided case by case at registration.
    fraction: float | None = None
    #: When the held-out cases are labelled.
    schedule: ScheduleName | None = None
    #: Largest share of a round's cases, or of its minutes where minutes size it, for `interleaved`.
    share_of_round: float | None = None

    def to_proto(self) -> records.HeldOutPolicy:
        fraction = self.fraction if self.number is None else None
        return to_proto(self, records.HeldOutPolicy, fraction=fraction)

    @classmethod
    def from_proto(cls, message: records.HeldOutPolicy) -> HeldOut:
        return from_proto(message, cls)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How rounds are sized, how cases are ordered, when a model is promoted.

    Only what is given is sent: None takes the service's default, and a project's `policy` shows what holds. Give one
    of `sizes`, `geometric`, `minutes_per_round`, or none of them. docs/policy.md lists the defaults.
    """

    #: Cases per round in order; the last size repeats.
    sizes: Sequence[int] | None = None
    #: (first, factor): round k takes first * factor^(k-1) cases.
    geometric: tuple[int, float] | None = None
    #: Minutes of correction that a round's cases are expected to fit.
    minutes_per_round: float | None = None
    #: Order in which cases are handed out, one of `ORDERINGS`.
    ordering: OrderingName | None = None
    #: Cases predicted before a round opens; 0 predicts all first.
    candidate_pool: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut)
    #: Dice by which a candidate may at most be worse than the serving model, per organ.
    margin_dice: float | None = None
    #: Labelled held-out cases below which a candidate is judged by the cases that it trained on.
    min_held_out_cases: int | None = None
    #: Networks, preprocessing and schedule of training: "paper" or "native" on a GPU, "cpu", "demo", "tiny".
    preset: str | None = None
    #: How each round trains: "paper" (from scratch on corrected labels) or "default".
    recipe: str | None = None
    #: Source of all randomness of the project.
    seed: int | None = None
    #: Length of a lease in minutes.
    lease_minutes: float | None = None
    #: Whether coarse labels keep the largest component of each organ.
    largest_component: bool | None = None
    #: Whether labels count only once a reviewer has accepted them.
    review_required: bool | None = None
    #: Whether reviewers may review their own labels where a review is required.
    review_own: bool | None = None
    #: Length in days of the leases of a detached session.
    detached_lease_days: float | None = None
    #: Hours in which training may run; None for any time, also in an update.
    training_window: TrainingWindow | None = None
    #: GPU seconds that all training of the project may take; 0 for as many as it takes, also in an update.
    gpu_seconds_budget: float = 0.0

    def to_proto(self) -> records.Policy:
        return to_proto(
            self,
            records.Policy,
            **self._sizing(),
            held_out=self.held_out.to_proto() if self.held_out != HeldOut() else None,
            promotion=self._promotion(),
            training=self._training(),
            lease_duration=_span(self.lease_minutes, 60.0),
            review=self._review(),
            detached_lease_duration=_span(self.detached_lease_days, DAY_S),
        )

    def _sizing(self) -> dict[str, records.RoundSizes | records.GeometricSizes | records.MinutesBudget | None]:
        """One of the three at most: the API takes a single one."""
        unset = dict.fromkeys(("sizes", "geometric", "minutes"))
        if self.sizes is not None:
            return {**unset, "sizes": records.RoundSizes(cases=self.sizes)}
        if self.geometric is not None:
            first, factor = self.geometric
            return {**unset, "geometric": records.GeometricSizes(first=first, factor=factor)}
        if self.minutes_per_round is not None:
            return {**unset, "minutes": records.MinutesBudget(minutes_per_round=self.minutes_per_round)}
        return {**unset}

    def _promotion(self) -> records.PromotionPolicy | None:
        if self.margin_dice is None and self.min_held_out_cases is None:
            return None
        margin = DEFAULT_MARGIN_DICE if self.margin_dice is None else self.margin_dice
        return records.PromotionPolicy(margin_dice=margin, min_held_out_cases=self.min_held_out_cases or 0)

    def _training(self) -> records.TrainingPolicy:
        # An empty window says that there is none; an unset one would leave what is there.
        window = to_proto(self.training_window or _NO_WINDOW, common.TrainingWindow)
        return to_proto(self, records.TrainingPolicy, window=window)

    def _review(self) -> records.ReviewPolicy | None:
        if self.review_required is None and self.review_own is None:
            return None
        return records.ReviewPolicy(required=bool(self.review_required), allow_own=bool(self.review_own))

    @classmethod
    def from_proto(cls, message: records.Policy) -> Policy:
        sizing = message.WhichOneof("sizing")
        return from_proto(
            message,
            cls,
            sizes=tuple(message.sizes.cases) if sizing == "sizes" else None,
            geometric=(message.geometric.first, message.geometric.factor) if sizing == "geometric" else None,
            minutes_per_round=message.minutes.minutes_per_round if sizing == "minutes" else None,
            held_out=HeldOut.from_proto(message.held_out),
            margin_dice=message.promotion.margin_dice,
            min_held_out_cases=message.promotion.min_held_out_cases,
            preset=message.training.preset,
            recipe=message.training.recipe,
            seed=message.training.seed,
            lease_minutes=message.lease_duration.ToNanoseconds() / 60e9,
            review_required=message.review.required,
            review_own=message.review.allow_own,
            detached_lease_days=_days(message),
            training_window=window_from_proto(message.training.window),
            gpu_seconds_budget=message.training.gpu_seconds_budget,
        )


def window_from_proto(message: common.TrainingWindow) -> TrainingWindow | None:
    """None for an empty one: at any time."""
    return from_proto(message, TrainingWindow) if message.start else None


def _span(value: float | None, unit_s: float) -> Duration | None:
    return None if value is None else duration(value * unit_s)


def _days(message: records.Policy) -> float:
    """Length of a detached lease in days; a service that does not say keeps cases as long as any other."""
    given = message.detached_lease_duration if message.HasField("detached_lease_duration") else message.lease_duration
    return given.ToNanoseconds() / 1e9 / DAY_S


def modality_value(name: str) -> int:
    """The protobuf number of "CT" or "MR"."""
    return number_of(common.Modality, name)
