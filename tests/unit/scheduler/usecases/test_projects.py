"""Projects, seed cases and registration: what is accepted and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rekindle.errors import AlreadyExists, IllegalTransition, InvalidInput, VersionConflict
from rekindle.vocabulary import Digest, Modality, Organ, OrganStatus
from rekindle_scheduler.domain.enums import ProjectState, RoundState
from rekindle_scheduler.domain.ids import ModelVersionId, VolumeId
from rekindle_scheduler.domain.policy import HeldOutPolicy, Policy
from rekindle_scheduler.ports import ModelVersion
from rekindle_scheduler.usecases import cases, projects
from scheduler_ports import ALICE, ORGANS, Bench, image, receipt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.create()
    return bench


def add_seed(bench: Bench, name: str = "seed", spleen: int = 50, not_reviewed: tuple[str, ...] = ()) -> None:
    with bench.store.write() as uow:
        cases.add_seed_case(
            uow,
            bench.project_id,
            image=image(name, Modality.MR),
            mask_volume_id=VolumeId(f"mask {name}"),
            receipt=receipt(name, spleen=spleen),
            not_reviewed=not_reviewed,
        )


@pytest.mark.parametrize(
    ("organs", "field"),
    [
        ([], "organs"),
        ([Organ(id="Liver", label_value=1)], "organs[0].id"),
        ([Organ(id="liver", label_value=0)], "organs[0].label_value"),
        ([Organ(id="liver", label_value=256)], "organs[0].label_value"),
        ([Organ(id="liver", label_value=1), Organ(id="liver", label_value=2)], "organs[1].id"),
        ([Organ(id="liver", label_value=1), Organ(id="spleen", label_value=1)], "organs[1].label_value"),
    ],
)
def test_organs_that_cannot_be_told_apart_are_refused(bench: Bench, organs: list[Organ], field: str) -> None:
    """The violation names the organ."""
    with bench.store.write() as uow, pytest.raises(InvalidInput) as refused:
        projects.create_project(
            uow, ALICE, display_name="Test", organs=organs, target_modality=Modality.CT, policy=Policy()
        )
    assert field == refused.value.violations[0].field


def test_a_project_without_seed_cases_cannot_train_an_igniter(bench: Bench) -> None:
    """It needs seed cases or a registered model."""
    with bench.store.write() as uow, pytest.raises(IllegalTransition) as refused:
        projects.start_project(uow, bench.project_id, None)
    assert "NO_SEED_CASES" == refused.value.reason


def test_starting_freezes_the_seed_set_and_opens_round_0(bench: Bench) -> None:
    """And a second start is refused."""
    add_seed(bench)
    with bench.store.write() as uow:
        details = projects.start_project(uow, bench.project_id, None)
        assert ProjectState.IGNITING == details.project.state
        assert RoundState.TRAINING == uow.rounds.get(bench.project_id, 0).state
        snapshot = uow.rounds.snapshot(bench.project_id, 0)
        assert snapshot is not None
        assert [Modality.MR] == [example.modality for example in snapshot.training]
        with pytest.raises(IllegalTransition):
            projects.start_project(uow, bench.project_id, None)
    with pytest.raises(IllegalTransition):
        add_seed(bench, "another")


@pytest.mark.parametrize("organs", [ORGANS[:1], ORGANS[::-1]])
def test_a_model_of_other_organs_cannot_be_the_igniter(bench: Bench, organs: tuple[Organ, ...]) -> None:
    """Neither fewer organs nor another order."""
    model = ModelVersion(
        model_version_id=ModelVersionId("m"),
        package_digest=Digest("p"),
        weights_digest=None,
        organs=organs,
        modality=Modality.CT,
    )
    with bench.store.write() as uow, pytest.raises(InvalidInput) as refused:
        projects.start_project(uow, bench.project_id, model)
    assert "MODEL_MISMATCH" == refused.value.reason


def test_a_policy_is_changed_at_its_version_only(bench: Bench) -> None:
    """The second of two who read version 1 is told to read again."""
    with bench.store.write() as uow:
        policy = replace(uow.projects.get(bench.project_id).policy, candidate_pool=7)
        assert 2 == projects.update_policy(uow, bench.project_id, policy, 1).project.policy_version
        with pytest.raises(VersionConflict):
            projects.update_policy(uow, bench.project_id, policy, 1)


def test_the_held_out_set_is_not_drawn_anew(bench: Bench) -> None:
    """Once it is drawn, a policy with another number or seed is refused."""
    bench.create(held_out=HeldOutPolicy(number=1))
    bench.register("v1", "v2", "v3")
    with bench.store.write() as uow:
        assert 1 == projects.close_registration(uow, bench.project_id).counts.held_out
        policy = uow.projects.get(bench.project_id).policy
        with pytest.raises(IllegalTransition) as refused:
            projects.update_policy(uow, bench.project_id, replace(policy, held_out=HeldOutPolicy(number=2)), 1)
    assert "HELD_OUT_DRAWN" == refused.value.reason


def test_a_drawn_number_does_not_become_a_share_while_cases_are_registered(bench: Bench) -> None:
    """Cases registered so far would stay out of the share, and a patient could end up on both sides."""
    bench.create(held_out=HeldOutPolicy(number=1))
    bench.register("v1", "v2", "v3")
    with bench.store.write() as uow:
        policy = uow.projects.get(bench.project_id).policy
        share = replace(policy, held_out=HeldOutPolicy(number=None, fraction=0.5))
        with pytest.raises(IllegalTransition) as refused:
            projects.update_policy(uow, bench.project_id, share, 1)
    assert "HELD_OUT_DRAWN" == refused.value.reason


def test_closing_twice_draws_once(bench: Bench) -> None:
    """The held-out cases stay the same, and no case can be added."""
    bench.create(held_out=HeldOutPolicy(number=1))
    bench.register("v1", "v2", "v3")
    drawn: list[set[str]] = []
    for _ in range(2):
        with bench.store.write() as uow:
            projects.close_registration(uow, bench.project_id)
            drawn.append({case.case_id for case in uow.cases.all(bench.project_id) if case.held_out})
    assert drawn[0] == drawn[1]
    with pytest.raises(IllegalTransition):
        bench.register("v4")


def test_a_volume_is_registered_once(bench: Bench) -> None:
    """Registered again, also within one batch, it answers the case that is there."""
    first = bench.register("v1", "v2")
    assert first == bench.register("v1", "v2")
    wanted = [cases.Registration(volume_id=VolumeId("v3"))] * 2
    with bench.store.write() as uow:
        answers = cases.register_cases(uow, bench.project_id, wanted, {VolumeId("v3"): image("v3")})
    assert [True, False] == [created for _, created in answers]
    assert answers[0][0] == answers[1][0]


@pytest.mark.parametrize("volume", [replace(image("v1"), is_image=False, modality=None), image("v1", Modality.MR)])
def test_only_images_of_the_targets_modality_are_cases(bench: Bench, volume: object) -> None:
    """A mask and an MR are refused in a CT project."""
    wanted = [cases.Registration(volume_id=VolumeId("v1"))]
    with bench.store.write() as uow, pytest.raises(InvalidInput) as refused:
        cases.register_cases(uow, bench.project_id, wanted, {VolumeId("v1"): volume})  # type: ignore[dict-item]
    assert "volume_id" == refused.value.violations[0].field


def test_a_seed_case_says_what_was_looked_at(bench: Bench) -> None:
    """Not reviewed where said so, out of view where nothing is found, else accepted."""
    add_seed(bench, "one", spleen=0)
    add_seed(bench, "two", spleen=0, not_reviewed=("spleen",))
    with bench.store.read() as uow:
        first, second = (seed.organ_states for seed in uow.seed_cases.all(bench.project_id))
    assert [OrganStatus.ACCEPTED, OrganStatus.OUT_OF_VIEW] == [state.status for state in first]
    assert [OrganStatus.ACCEPTED, OrganStatus.NOT_REVIEWED] == [state.status for state in second]


def test_a_seed_image_has_one_mask(bench: Bench) -> None:
    """The same again changes nothing; another mask is refused."""
    add_seed(bench)
    add_seed(bench)
    with bench.store.write() as uow:
        assert 1 == len(uow.seed_cases.all(bench.project_id))
        other = replace(receipt("seed"), mask_volume_id=VolumeId("other"))
        with pytest.raises(AlreadyExists):
            cases.add_seed_case(
                uow,
                bench.project_id,
                image=image("seed"),
                mask_volume_id=VolumeId("other"),
                receipt=other,
                not_reviewed=(),
            )


def test_a_seed_mask_lies_on_its_image(bench: Bench) -> None:
    """A receipt of another image or another mask is refused."""
    with bench.store.write() as uow, pytest.raises(InvalidInput) as refused:
        cases.add_seed_case(
            uow,
            bench.project_id,
            image=image("seed"),
            mask_volume_id=VolumeId("mask seed"),
            receipt=receipt("another"),
            not_reviewed=(),
        )
    assert ["receipt_id", "mask_volume_id"] == [each.field for each in refused.value.violations]
