"""Records as messages and back, by their annotations; expected messages are written by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle import convert
from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import records_pb2, scheduler_pb2
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle.convert import from_proto, name_of, names_of, number_of, to_proto, word_of
from rekindle.errors import InvalidInput
from rekindle.vocabulary import (
    ZERO_IS_UNSET,
    CaseMetrics,
    CodedConcept,
    Example,
    ExampleSource,
    Modality,
    Organ,
    OrganEffort,
    OrganMetrics,
    OrganQuality,
    OrganState,
    OrganStatus,
    RunPackage,
    RunResult,
    TimeKind,
    TimeSegment,
    TimeSource,
    TrainingWindow,
    Weekday,
)

_NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
_A, _B = "a" * 64, "b" * 64

_SEGMENT = TimeSegment(
    kind=TimeKind.EDITING, source=TimeSource.MEASURED, start_time=_NOON, active_seconds=12.5, tool="brush"
)
_EXAMPLE = Example(
    case_id="c1",
    source=ExampleSource.TARGET,
    modality=Modality.MR,
    image_digest=_A,  # type: ignore[arg-type]
    mask_digest=_B,  # type: ignore[arg-type]
    organ_states=(OrganState(organ_id="liver", status=OrganStatus.OUT_OF_VIEW),),
)


def test_nested_records_and_words() -> None:
    """A record with a list of records and words becomes the message that one would write by hand."""
    expected = common_pb2.Example(
        case_id="c1",
        source=common_pb2.EXAMPLE_SOURCE_TARGET,
        modality=common_pb2.MODALITY_MR,
        image_digest=_A,
        mask_digest=_B,
        organ_states=[common_pb2.OrganState(organ_id="liver", status=common_pb2.ORGAN_STATUS_OUT_OF_VIEW)],
    )
    assert expected == to_proto(_EXAMPLE, common_pb2.Example)


def test_moments_are_utc() -> None:
    """A moment becomes a Timestamp, seconds and nanoseconds since 1970 by hand, and comes back in UTC."""
    message = to_proto(_SEGMENT, common_pb2.TimeSegment)
    assert (1714564800, 250_000_000) == (message.start_time.seconds, message.start_time.nanos)
    assert from_proto(message, TimeSegment) == _SEGMENT


@pytest.mark.parametrize(
    ("record", "message_type"),
    [
        (_SEGMENT, common_pb2.TimeSegment),
        (_EXAMPLE, common_pb2.Example),
        (Organ("liver", 3, CodedConcept("SCT", "10200004", "Liver")), common_pb2.Organ),
        (Organ("spleen", 1), common_pb2.Organ),
        (OrganQuality(organ_id="liver", soft_dice_confidence=None, slices=4), common_pb2.OrganQuality),
        (OrganEffort(organ_id="liver", voxels_changed=7, added_path_length_mm=1.5), common_pb2.OrganEffort),
        (
            TrainingWindow(start="20:00", end="06:00", time_zone="UTC", days=(Weekday.MONDAY, Weekday.SUNDAY)),
            common_pb2.TrainingWindow,
        ),
        (
            RunResult(
                packages=(RunPackage(modality=Modality.CT, package_digest=_A),),  # type: ignore[arg-type]
                weights_digest=_B,  # type: ignore[arg-type]
                candidate=(
                    CaseMetrics(
                        image_digest=_A,  # type: ignore[arg-type]
                        organs=(OrganMetrics(organ_id="liver", dice=0.0, hd95_mm=None),),
                    ),
                ),
                final_loss=0.25,
            ),
            trainer_pb2.RunResult,
        ),
    ],
)
def test_shared_records_round_trip(record: object, message_type: type) -> None:
    """Every shared record survives the way to its message and back, None and 0 told apart."""
    assert record == from_proto(to_proto(record, message_type), type(record))


@given(st.floats(0, 1e6), st.integers(0, 2**40), st.none() | st.floats(0, 1))
def test_numbers_survive(length: float, voxels: int, dice: float | None) -> None:
    """Numbers survive unchanged; an unset Dice stays None and 0.0 stays 0.0."""
    effort = OrganEffort(organ_id="x", voxels_changed=voxels, added_path_length_mm=length, dice=dice)
    assert effort == from_proto(to_proto(effort, common_pb2.OrganEffort), OrganEffort)


def test_plain_tuple_is_a_coded_concept() -> None:
    """What users write as (scheme, value, meaning) is a coded concept, and equals a plain tuple."""
    organ = Organ("liver", 1, ("SCT", "10200004", "Liver"))  # type: ignore[arg-type]
    assert "Liver" == organ.code.meaning  # type: ignore[union-attr]
    assert ("SCT", "10200004", "Liver") == organ.code


@pytest.mark.parametrize(
    ("message", "path", "problem"),
    [
        (common_pb2.TimeSegment(source=1), "kind", "is missing"),
        (common_pb2.TimeSegment(kind=2, source=9), "source", "is 9, which is not known"),  # type: ignore[arg-type]
        (common_pb2.TimeSegment(kind=2, source=1), "start_time", "is missing"),
    ],
)
def test_wrong_messages_are_named_by_path(message: common_pb2.TimeSegment, path: str, problem: str) -> None:
    """An unknown word and a missing message are refused under the path of the field."""
    with pytest.raises(InvalidInput, match=problem) as refusal:
        from_proto(message, TimeSegment, field="time_segments[2]")
    assert [f"time_segments[2].{path}"] == [violation.field for violation in refusal.value.violations]


def test_wrong_item_of_a_list_is_named_by_index() -> None:
    """A wrong word inside a list is named with its index."""
    message = to_proto(_EXAMPLE, common_pb2.Example)
    message.organ_states.add(organ_id="spleen")
    with pytest.raises(InvalidInput) as refusal:
        from_proto(message, Example)
    assert "organ_states[1].status" == refusal.value.violations[0].field


def test_moment_outside_the_calendar_is_refused() -> None:
    """A Timestamp that no calendar has is bad input, not a crash."""
    message = to_proto(_SEGMENT, common_pb2.TimeSegment)
    message.start_time.seconds = 10**15
    with pytest.raises(InvalidInput, match="calendar"):
        from_proto(message, TimeSegment)


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """A record with defaults that the message may leave as they are."""

    required: bool = True
    allow_own: bool = False


@dataclass(frozen=True, kw_only=True)
class _Policy:
    """A part of the policy with other kinds of defaults."""

    ordering: str = "easy-first"
    candidate_pool: int = field(default=50, metadata=ZERO_IS_UNSET)
    lease_duration: timedelta = timedelta(hours=4)
    largest_component: bool = True
    review: _Rules = field(default_factory=_Rules)


def test_unset_fields_take_the_records_defaults() -> None:
    """What the message does not set has the record's default: presence, unspecified words, marked zeros."""
    assert _Policy() == from_proto(records_pb2.Policy(), _Policy)


def test_set_fields_win_over_defaults() -> None:
    """What is set is taken, False and all, also inside a message that is set."""
    message = records_pb2.Policy(
        ordering=records_pb2.ORDERING_HARD_FIRST,
        candidate_pool=3,
        lease_duration=convert.duration(90),
        largest_component=False,
        review=records_pb2.ReviewPolicy(),
    )
    expected = _Policy(
        ordering="hard-first",
        candidate_pool=3,
        lease_duration=timedelta(seconds=90),
        largest_component=False,
        review=_Rules(required=False),
    )
    assert expected == from_proto(message, _Policy)


def test_empty_text_is_none_where_the_record_has_none() -> None:
    """A text without presence is None where it is empty and the record may have None."""

    assert _Named(lease_id="l", session_id=None) == from_proto(records_pb2.Lease(lease_id="l"), _Named)
    assert "s" == from_proto(records_pb2.Lease(session_id="s"), _Named).session_id


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A record with an optional text."""

    lease_id: str
    session_id: str | None


def test_forgotten_field_is_an_error() -> None:
    """A field of the message that is neither in the record nor given is not silently left out."""
    with pytest.raises(AttributeError, match="code"):
        to_proto(_Named(lease_id="l", session_id=None), common_pb2.Organ, id="liver", label_value=1)


def test_given_field_that_the_message_lacks_is_an_error() -> None:
    """A misspelt keyword is not silently left out."""
    with pytest.raises(TypeError, match="codes"):
        to_proto(Organ("liver", 1), common_pb2.Organ, codes=None)


def test_given_fields_win() -> None:
    """What is given by keyword replaces what the record has, on both ways."""
    assert "other" == to_proto(_EXAMPLE, common_pb2.Example, case_id="other").case_id
    assert "other" == from_proto(to_proto(_EXAMPLE, common_pb2.Example), Example, case_id="other").case_id


def test_names_for_people() -> None:
    """Enums have names for people, in the API's order; numbers of a newer service have one too."""
    assert ("edited", "accepted", "absent", "out-of-view", "not-reviewed") == names_of(common_pb2.OrganStatus)
    assert "out-of-view" == name_of(common_pb2.OrganStatus, common_pb2.ORGAN_STATUS_OUT_OF_VIEW)
    assert "unknown-77" == name_of(common_pb2.OrganStatus, 77)


def test_number_of_a_word_either_spelling() -> None:
    """Words with hyphens or underscores have the same number; an unknown one is refused with the list."""
    assert common_pb2.ORGAN_STATUS_OUT_OF_VIEW == number_of(common_pb2.OrganStatus, "out_of_view")
    assert common_pb2.ORGAN_STATUS_OUT_OF_VIEW == number_of(common_pb2.OrganStatus, "out-of-view")
    with pytest.raises(InvalidInput, match=r"'gone' is not one of: edited, accepted, absent"):
        number_of(common_pb2.OrganStatus, "gone")


def test_word_of_lists_what_there_is() -> None:
    """An unspecified number is refused with the API's names."""
    with pytest.raises(InvalidInput, match=r"modality is missing: must be one of MODALITY_CT, MODALITY_MR"):
        word_of(Modality, common_pb2.Modality, 0, "modality")
    assert Modality.MR is word_of(Modality, common_pb2.Modality, 2, "modality")


def test_modality_reads_what_earlier_releases_stored() -> None:
    """Lower-case modalities are the same words; others are none."""
    assert Modality.CT is Modality("ct")
    with pytest.raises(ValueError, match="pet"):
        Modality("pet")


def test_maps_are_copied() -> None:
    """A mapping becomes a map field and comes back equal."""
    event = _Event(kind="case-submitted", details={"case": "c1"})
    message = records_pb2.RoundEvent(kind="case-submitted", details={"case": "c1"})
    assert message == to_proto(event, records_pb2.RoundEvent, cursor=None, time=None, message=None, round=None)
    assert event == from_proto(message, _Event)


@dataclass(frozen=True, kw_only=True)
class _Event:
    """A record with a mapping."""

    kind: str
    details: dict[str, str]


def test_request_is_a_message_too() -> None:
    """Requests convert like records' messages: what they do not have keeps its default."""
    request = scheduler_pb2.RenewLeaseRequest(lease_id="l")
    assert _Named(lease_id="l", session_id=None) == from_proto(request, _Named, session_id=None)
