"""Records as JSON and back; expected JSON is written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pytest
from rekindle.vocabulary import CodedConcept, Modality, Organ, TrainingWindow, Weekday
from rekindle_servicekit.json_codec import decode, decode_all, encode


class Colour(StrEnum):
    """A word."""

    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """One kind of a union."""

    cases: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Another kind of the union."""

    minutes: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """All kinds of fields."""

    colour: Colour
    at: datetime
    lasts: timedelta
    sizing: Sizes | Budget
    organs: tuple[Organ, ...] = ()
    details: Mapping[str, int] = field(default_factory=dict[str, int])
    note: str | None = None
    seen: int = field(default=0, metadata={"stored": False})
    budget: float = field(default=0.0, metadata={"later": True})


_RECORD = Record(
    colour=Colour.RED,
    at=datetime(2024, 5, 1, 12, tzinfo=UTC),
    lasts=timedelta(minutes=1.5),
    sizing=Budget(minutes=30.0),
    organs=(Organ("liver", 1, CodedConcept("SCT", "10200004", "Liver")), Organ("spleen", 2)),
    details={"a": 1},
)
_JSON = {
    "colour": "red",
    "at": "2024-05-01T12:00:00+00:00",
    "lasts": 90.0,
    "sizing": {"minutes": 30.0},
    "organs": [
        {"id": "liver", "label_value": 1, "code": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"}},
        {"id": "spleen", "label_value": 2, "code": None},
    ],
    "details": {"a": 1},
    "note": None,
}


def test_encode_gives_the_stored_form() -> None:
    """Records have the form that earlier releases have stored."""
    assert json.loads(json.dumps(encode(_RECORD))) == _JSON


def test_decode_reads_it_back() -> None:
    """What was stored is the record again, the kind of a union told by its fields."""
    assert _RECORD == decode(Record, _JSON)
    assert Sizes(cases=(1, 2)) == decode(Record, {**_JSON, "sizing": {"cases": [1, 2]}}).sizing


def test_fields_of_other_releases() -> None:
    """A field that is not there takes its default, and one that is not known is passed over."""
    older = {name: value for name, value in _JSON.items() if name != "note"}
    assert _RECORD == decode(Record, {**older, "of_a_newer_release": 3})


def test_later_fields_are_stored_once_used() -> None:
    """A field that the release before does not know is stored only where it says something."""
    used = Record(**{**vars(_RECORD), "budget": 5.0})
    assert 5.0 == encode(used)["budget"]
    assert used == decode(Record, encode(used))


@pytest.mark.parametrize("stored", ["ct", "CT"])
def test_modalities_of_earlier_releases(stored: str) -> None:
    """A modality is read in either spelling."""
    assert Modality.CT is decode(Modality, stored)


def test_decode_all_reads_a_list() -> None:
    """A list of records keeps its order."""
    windows = (TrainingWindow(start="20:00", end="06:00", time_zone="UTC", days=(Weekday.FRIDAY,)),)
    assert windows == decode_all(TrainingWindow, encode(windows))
