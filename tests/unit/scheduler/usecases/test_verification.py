"""What the scheduler refers to is asked of the services that keep it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from rekindle.errors import DependencyUnavailable, ModelNotReady, NotFound
from rekindle_scheduler.state.inventory import IdReference, VolumeReference
from rekindle_scheduler.usecases.verification import Verification
from rekindle_servicekit.verification import Finding, Summary, VerifyOptions
from rekindle_servicekit.workers import Cancellation


@dataclass
class Known:
    """Inference and the trainer, and what they know."""

    volumes_: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    serving: str = ""
    calls: int = 0

    def volumes(self, project_id: str, volume_ids: Sequence[str]) -> list[Any]:
        self.calls += 1
        if set(volume_ids) - set(self.volumes_):
            raise NotFound("some are not there")
        return [SimpleNamespace(volume_id=each, digest=self.volumes_[each]) for each in volume_ids]

    def receipt(self, project_id: str, receipt_id: str) -> None:
        if receipt_id not in self.others:
            raise NotFound("it is not there")

    model = run = receipt

    def active_model(self, project_id: str) -> Any:
        if not self.serving:
            raise ModelNotReady("none")
        return SimpleNamespace(model_version_id=self.serving)


@dataclass
class Rows:
    """An inventory of lists."""

    volumes_: list[VolumeReference] = field(default_factory=list)
    receipts_: list[IdReference] = field(default_factory=list)
    models_: list[IdReference] = field(default_factory=list)
    runs_: list[IdReference] = field(default_factory=list)
    pointers_: list[IdReference] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return lambda: iter(self.__dict__[f"{name}_"])


def named(volume_id: str, digest: str | None = "d", row: str = "") -> VolumeReference:
    return VolumeReference(row=row or f"cases/{volume_id}", project_id="p", volume_id=volume_id, digest=digest)  # type: ignore[arg-type]


def look(rows: Rows, known: Known, *, deep: bool = False) -> Iterator[Finding]:
    return Verification(rows, known, known)(VerifyOptions(deep=deep), Summary(), Cancellation())  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", [set(), {"v000"}, {"v007", "v008"}, {"v499", "v500", "v999"}])
def test_each_volume_that_inference_does_not_know_is_named(missing: set[str]) -> None:
    """Also where its answer names none of them, and with few calls for many volumes."""
    ids = [f"v{number:03d}" for number in range(1000)]
    known = Known(volumes_={each: "d" for each in ids if each not in missing})

    found = list(look(Rows(volumes_=[named(each) for each in ids]), known))

    assert {finding.where for finding in found} == {f"cases/{each}" for each in missing}
    assert all(finding.kind == "missing" for finding in found)
    assert known.calls <= 2 + 40 * len(missing)


def test_every_row_that_refers_to_a_missing_volume_is_named() -> None:
    """One volume may be a case's and a submission's."""
    rows = [named("v", row="cases/1"), named("v", row="submissions/2"), named("w")]

    found = list(look(Rows(volumes_=rows), Known(volumes_={"w": "d"})))

    assert [finding.where for finding in found] == ["cases/1", "submissions/2"]


def test_other_pixels_under_the_same_id_are_inconsistent() -> None:
    """A row without a digest makes no claim."""
    rows = [named("v", "other"), named("w", None)]

    found = list(look(Rows(volumes_=rows), Known(volumes_={"v": "d", "w": "d"})))

    assert [(finding.kind.value, finding.where) for finding in found] == [("inconsistent", "cases/v")]


def test_receipts_are_looked_at_only_when_deep() -> None:
    """Each takes a call of its own."""
    rows = Rows(receipts_=[IdReference(row="submissions/1", project_id="p", id="r")])  # type: ignore[arg-type]

    assert list(look(rows, Known())) == []
    assert [finding.where for finding in look(rows, Known(), deep=True)] == ["submissions/1"]


def test_models_runs_and_pointers_are_compared() -> None:
    """A run that the trainer lost is missing; a pointer that inference has elsewhere is inconsistent."""
    rows = Rows(
        models_=[IdReference(row="rounds/0", project_id="p", id="m")],  # type: ignore[arg-type]
        runs_=[IdReference(row="rounds/0", project_id="p", id="lost")],  # type: ignore[arg-type]
        pointers_=[IdReference(row="projects/p", project_id="p", id="m")],  # type: ignore[arg-type]
    )

    found = list(look(rows, Known(others={"m"}, serving="n")))

    assert [(finding.kind.value, finding.where) for finding in found] == [
        ("missing", "rounds/0"),
        ("inconsistent", "projects/p"),
    ]
    assert "lost, which the trainer does not know" in found[0].message
    assert "in inference n does" in found[1].message
    assert list(look(Rows(pointers_=rows.pointers_), Known(serving="m"))) == []


def test_a_service_that_is_away_is_no_finding() -> None:
    """Nothing is called missing because nobody answered."""
    known = Known()
    known.volumes = lambda *_: (_ for _ in ()).throw(DependencyUnavailable("away"))  # type: ignore[method-assign]
    with pytest.raises(DependencyUnavailable):
        list(look(Rows(volumes_=[named("v")]), known))
