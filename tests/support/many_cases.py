"""A project with very many cases on PostgreSQL, made by the database itself in seconds."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from rekindle.vocabulary import Modality, Organ
from rekindle_scheduler.domain.enums import ProjectState, RoundState
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.policy import MinutesBudget, Policy
from rekindle_scheduler.domain.records import Project, Round
from rekindle_scheduler.state import State
from rekindle_servicekit.database import write

PROJECT = ProjectId("6f1c0f2e-3a39-4bd2-9f3e-3b8f1f0d6a01")

#: Of all cases: :selected in round 1, each with a coarse label; the first :labelled of those are done.
_CASES = sa.text("""
INSERT INTO cases (case_id, project_id, sequence, volume_id, image_digest, group_key, held_out, mark,
                   register_time, round, rank, ordering_rank, fencing_token, submission_id,
                   coarse_label, coarse_model_version_id)
SELECT 'case-' || n, :project, n, 'volume-' || n, md5(n::text), '', false, 'none', now(),
       CASE WHEN n <= :selected THEN 1 ELSE 0 END, n, n, 0,
       CASE WHEN n <= :labelled THEN 'submission-' || n END,
       json_build_object('mask_volume_id', 'mask-' || n, 'mask_digest', md5(n::text),
                         'model_version_id', 'model-1', 'predicted_minutes', 8.0), 'model-1'
FROM generate_series(1, :cases) AS n
""")


def fill(store: State, *, cases: int, selected: int, labelled: int = 0) -> ProjectId:
    """One project whose round 1 hands out its cases."""
    moment = datetime.now(UTC)
    with store.write() as uow:
        uow.projects.add(
            Project(
                project_id=PROJECT,
                display_name="Many",
                organs=(Organ(id="liver", label_value=1),),
                target_modality=Modality.CT,
                policy=Policy(sizing=MinutesBudget(minutes_per_round=90.0)),
                create_time=moment,
                state=ProjectState.ACTIVE,
            )
        )
        for number, state in ((0, RoundState.CLOSED), (1, RoundState.ANNOTATING)):
            uow.rounds.add(Round(project_id=PROJECT, number=number, state=state, start_time=moment))
    engine = store._engine
    with write(engine) as connection:
        connection.execute(_CASES, {"project": PROJECT, "cases": cases, "selected": selected, "labelled": labelled})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE cases")
    return PROJECT
