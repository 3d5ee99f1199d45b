"""Snapshots: what is frozen for a run, in which order, under which digest."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

from rekindle.vocabulary import Modality, OrganState, OrganStatus
from rekindle_scheduler.domain.enums import ReviewState
from rekindle_scheduler.domain.ids import run_id_for
from rekindle_scheduler.domain.policy import Policy, TrainingPolicy
from rekindle_scheduler.domain.records import SeedCase
from rekindle_scheduler.domain.snapshot import cut_snapshot, seed_snapshot

LIVER = (OrganState(organ_id="liver", status=OrganStatus.EDITED),)


def seed(make: SimpleNamespace, name: str, modality: Modality = Modality.MR) -> SeedCase:
    return SeedCase(
        seed_case_id=f"id-{name}",
        project_id=make.project_id,
        modality=modality,
        image_volume_id="i",
        mask_volume_id="m",
        receipt_id="r",
        image_digest=make.sha(name),
        mask_digest=make.sha(f"mask-{name}"),
        organ_states=LIVER,
    )


def labelled(make: SimpleNamespace, sequence: int, **changes):
    case = make.case(sequence, **changes)
    return case, make.submission(case.case_id, {"liver": 0.9}, mask_digest=make.sha(f"mask{sequence}"))


def paper(make: SimpleNamespace):
    return make.project(policy=Policy(training=TrainingPolicy(recipe="paper")))


def images(make: SimpleNamespace, *names: str) -> list[str]:
    return sorted(make.sha(name) for name in names)


def test_digest_is_the_documented_json(make: SimpleNamespace):
    """Sorted compact JSON of both lists without case ids, written out by hand."""
    snapshot = cut_snapshot(paper(make), [labelled(make, 1), labelled(make, 2, held_out=True)], [])

    def text(n: int) -> str:
        return (
            f'{{"image_digest":"{make.sha(f"image{n}")}","mask_digest":"{make.sha(f"mask{n}")}",'
            '"modality":"CT","organ_statuses":{"liver":"edited"},"source":"target"}'
        )

    expected = f'{{"heldout":[{text(2)}],"training":[{text(1)}]}}'
    assert hashlib.sha256(expected.encode()).hexdigest() == snapshot.digest


def test_order_and_ids_do_not_matter(make: SimpleNamespace):
    """Rows in any order and with other ids give the same snapshot."""
    rows = [labelled(make, i) for i in range(1, 6)]
    again = [labelled(make, i, case_id=f"x{i}") for i in (3, 5, 1, 4, 2)]
    first, second = (cut_snapshot(paper(make), r, []) for r in (rows, again))
    assert first.digest == second.digest
    assert images(make, *(f"image{i}" for i in range(1, 6))) == [e.image_digest for e in first.training]


def test_labels_and_sides_change_the_digest(make: SimpleNamespace):
    """Another mask, or the same case held out, is another snapshot."""
    case, submission = labelled(make, 1)
    other = labelled(make, 2)
    variants = [
        [(case, submission), other],
        [(case, make.submission(case.case_id, {"liver": 0.9}, mask_digest=make.sha("changed"))), other],
        [labelled(make, 1, held_out=True), other],
    ]
    assert 3 == len({cut_snapshot(paper(make), rows, []).digest for rows in variants})


def test_seed_cases_join_by_recipe(make: SimpleNamespace):
    """The paper's recipe trains on corrected labels alone; the default one on the seed set too, seeds first."""
    rows, seeds = [labelled(make, 1)], [seed(make, "b"), seed(make, "a")]
    assert ["target"] == [e.source for e in cut_snapshot(paper(make), rows, seeds).training]
    mixed = cut_snapshot(make.project(), rows, seeds).training
    assert [("seed", "MR"), ("seed", "MR"), ("target", "CT")] == [(e.source, e.modality) for e in mixed]
    assert images(make, "a", "b") == [e.image_digest for e in mixed[:2]]


def test_igniter_trains_on_the_seed_set(make: SimpleNamespace):
    """Nothing is held out of it."""
    snapshot = seed_snapshot([seed(make, "a"), seed(make, "b", Modality.CT)])
    assert images(make, "a", "b") == [e.image_digest for e in snapshot.training]
    assert () == snapshot.heldout


def test_held_out_cases_that_wait_keep_their_images_out_of_training(make: SimpleNamespace):
    """The twin of a held-out case that is labelled only later is neither trained on as a case nor as a seed."""
    waiting, _ = labelled(make, 1, held_out=True)
    twin, other = labelled(make, 1, case_id="twin"), labelled(make, 2)
    snapshot = cut_snapshot(make.project(), [twin, other], [seed(make, "image1"), seed(make, "a")], [waiting])
    assert sorted(images(make, "a", "image2")) == sorted(e.image_digest for e in snapshot.training)
    assert images(make, "a") == [
        e.image_digest for e in seed_snapshot([seed(make, "image1"), seed(make, "a")], [waiting]).training
    ]


def test_drafts_are_never_trained_on(make: SimpleNamespace):
    """Only accepted submissions enter."""
    case, _ = labelled(make, 1)
    draft = make.submission(case.case_id, {"liver": 0.9}, review_state=ReviewState.DRAFT)
    snapshot = cut_snapshot(paper(make), [(case, draft), labelled(make, 2)], [])
    assert images(make, "image2") == [e.image_digest for e in snapshot.training]


def test_held_out_patients_and_images_never_train(make: SimpleNamespace):
    """A second case of a held-out patient, its image under another name, or a seed with it: all kept out."""
    rows = [
        labelled(make, 1, held_out=True, group_key="p1"),
        labelled(make, 2, group_key="p1"),
        labelled(make, 3, group_key="p3", image_digest=make.sha("image1")),
        labelled(make, 4, group_key="p4"),
    ]
    snapshot = cut_snapshot(make.project(), rows, [seed(make, "image1"), seed(make, "a")])
    assert images(make, "image1") == [e.image_digest for e in snapshot.heldout]
    assert {make.sha("image4"), make.sha("a")} == {e.image_digest for e in snapshot.training}


def test_run_ids_are_made_beforehand(make: SimpleNamespace):
    """The same round asks for the same run; a retry, another round or another project for another."""
    other = "00000000-0000-4000-8000-000000000000"
    ids = [run_id_for(make.project_id, 1), run_id_for(make.project_id, 2), run_id_for(make.project_id, 1, 1)]
    assert run_id_for(make.project_id, 1) == ids[0]
    assert 4 == len({*ids, run_id_for(other, 1)})
