"""What a project is made of: organs and a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.convert import duration, from_proto, name_of, names_of, number_of, to_proto
from rekindle.vocabulary import Organ as Organ
from rekindle.vocabulary import TrainingWindow

DAY_S = 86_400.0
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
    """Which cases measure the model and never train it."""

    #: How many, drawn when registration is closed. Leave None to use `fraction`.
    number: int | None = None
    #: Share of the patients, decided case by case at registration.
    fraction: float | None = None
    schedule: ScheduleName = "interleaved"
    #: `interleaved`: at most this share of a round's cases, or of its minutes where minutes size it, is held out.
    share_of_round: float = 0.34

    def to_proto(self) -> records.HeldOutPolicy:
        message = records.HeldOutPolicy(
            schedule=number_of(records.HeldOutSchedule, self.schedule),
            share_of_round=self.share_of_round,
        )
        if self.number is not None:
            message.number = self.number
        elif self.fraction is not None:
            message.fraction = self.fraction
        return message

    @classmethod
    def from_proto(cls, message: records.HeldOutPolicy) -> HeldOut:
        size = message.WhichOneof("size")
        return cls(
            number=message.number if size == "number" else None,
            fraction=message.fraction if size == "fraction" else None,
            schedule=name_of(records.HeldOutSchedule, message.schedule),  # type: ignore[arg-type]
            share_of_round=message.share_of_round,
        )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How rounds are sized, how cases are ordered, when a model is promoted.

    Give one of `sizes`, `geometric`, `minutes_per_round`; with none the service's default holds.
    """

    #: Cases per round in order; the last size repeats.
    sizes: Sequence[int] | None = None
    #: (first, factor): round k takes first * factor^(k-1) cases.
    geometric: tuple[int, float] | None = None
    #: As many cases as fit these minutes.
    minutes_per_round: float | None = None
    ordering: OrderingName = "easy-first"
    #: Cases predicted before a round opens; 0 predicts all first.
    candidate_pool: int = 0
    held_out: HeldOut = field(default_factory=HeldOut)
    #: A candidate may be worse than the serving model by at most this Dice, per organ.
    margin_dice: float = 0.02
    #: With fewer labelled held-out cases a candidate is judged by the cases that it trained on.
    min_held_out_cases: int = 2
    #: Networks, preprocessing and schedule of training: "paper" or "native" on a GPU, "cpu", "demo", "tiny".
    preset: str = "cpu"
    #: "paper" (from scratch on corrected labels) or "default".
    recipe: str = "default"
    seed: int = 0
    lease_minutes: float = 60.0
    #: Keep the largest component per organ in coarse labels.
    largest_component: bool = True
    #: Labels count only once a reviewer has accepted them.
    review_required: bool = False
    #: Reviewers may review their own labels where a review is required.
    review_own: bool = False
    #: How long a case of a detached session is kept.
    detached_lease_days: float = 7.0
    #: When training may run; None: at any time.
    training_window: TrainingWindow | None = None
    #: GPU seconds that all training of the project may take; 0: as many as it takes.
    gpu_seconds_budget: float = 0.0

    def to_proto(self) -> records.Policy:
        message = records.Policy(
            ordering=number_of(records.Ordering, self.ordering),
            candidate_pool=self.candidate_pool,
            held_out=self.held_out.to_proto(),
            promotion=records.PromotionPolicy(margin_dice=self.margin_dice, min_held_out_cases=self.min_held_out_cases),
            training=self._training(),
            lease_duration=duration(self.lease_minutes * 60),
            largest_component=self.largest_component,
            review=records.ReviewPolicy(required=self.review_required, allow_own=self.review_own),
            detached_lease_duration=duration(self.detached_lease_days * DAY_S),
        )
        if self.sizes is not None:
            message.sizes.cases.extend(self.sizes)
        elif self.geometric is not None:
            message.geometric.first, message.geometric.factor = self.geometric
        elif self.minutes_per_round is not None:
            message.minutes.minutes_per_round = self.minutes_per_round
        return message

    def _training(self) -> records.TrainingPolicy:
        # An empty window says that there is none; an unset one would leave what is there.
        window = to_proto(self.training_window or _NO_WINDOW, common.TrainingWindow)
        return records.TrainingPolicy(
            preset=self.preset,
            recipe=self.recipe,
            seed=self.seed,
            window=window,
            gpu_seconds_budget=self.gpu_seconds_budget,
        )

    @classmethod
    def from_proto(cls, message: records.Policy) -> Policy:
        sizing = message.WhichOneof("sizing")
        return cls(
            sizes=tuple(message.sizes.cases) if sizing == "sizes" else None,
            geometric=(message.geometric.first, message.geometric.factor) if sizing == "geometric" else None,
            minutes_per_round=message.minutes.minutes_per_round if sizing == "minutes" else None,
            ordering=name_of(records.Ordering, message.ordering),  # type: ignore[arg-type]
            candidate_pool=message.candidate_pool,
            held_out=HeldOut.from_proto(message.held_out),
            margin_dice=message.promotion.margin_dice,
            min_held_out_cases=message.promotion.min_held_out_cases,
            preset=message.training.preset,
            recipe=message.training.recipe,
            seed=message.training.seed,
            lease_minutes=message.lease_duration.ToNanoseconds() / 60e9,
            largest_component=message.largest_component,
            review_required=message.review.required,
            review_own=message.review.allow_own,
            detached_lease_days=_days(message),
            training_window=window_from_proto(message.training.window),
            gpu_seconds_budget=message.training.gpu_seconds_budget,
        )


def window_from_proto(message: common.TrainingWindow) -> TrainingWindow | None:
    """None for an empty one: at any time."""
    return from_proto(message, TrainingWindow) if message.start else None


def _days(message: records.Policy) -> float:
    """Of a detached lease; a service that does not say keeps cases as long as any other."""
    given = message.detached_lease_duration if message.HasField("detached_lease_duration") else message.lease_duration
    return given.ToNanoseconds() / 1e9 / DAY_S


def modality_value(name: str) -> int:
    """The protobuf number of "CT" or "MR"."""
    return number_of(common.Modality, name)
