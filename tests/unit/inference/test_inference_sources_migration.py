"""Volumes from before there was a search are found as well, once the schema is brought up to date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import rekindle_inference
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.state import State
from rekindle_servicekit.database import make_engine, migrate

MIGRATIONS = Path(rekindle_inference.__file__).parent / "migrations"
GEOMETRY = {
    "size": [1, 1, 1],
    "spacing_mm": [1.0, 1.0, 1.0],
    "origin_mm": [0.0, 0.0, 0.0],
    "direction": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0],
}


def test_old_references_are_filled_in(tmp_path: Path) -> None:
    """Of a row of the schema before: by series, instance and accession; a volume without a reference stays without."""
    before = tmp_path / "before"
    newer = ("000[4-9]*", "__pycache__")
    shutil.copytree(MIGRATIONS, before, ignore=shutil.ignore_patterns(*newer))
    url = f"sqlite:///{tmp_path}/state.sqlite3"
    engine = make_engine(url)
    migrate(engine, before)
    source = {
        "study_instance_uid": "",
        "series_instance_uid": "1.2.3",
        "frame_of_reference_uid": "",
        "sop_instance_uids": ["1.2.3.1", "1.2.3.2", "1.2.3.2"],
        "accession_number": "A1",
    }
    nothing = {**dict.fromkeys(source, ""), "sop_instance_uids": []}
    with engine.begin() as connection:
        for volume_id, reference in (("old", source), ("bare", nothing)):
            connection.exec_driver_sql(
                "INSERT INTO volumes (volume_id, project_id, kind, geometry, original_digest, canonical_digest, "
                "original_format, source, modality, created_at) VALUES (?, 'p', 'image', ?, '', '', 'nifti', ?, 'CT', "
                "'2026-01-01 00:00:00.000000')",
                (volume_id, json.dumps(GEOMETRY), json.dumps(reference)),
            )
    engine.dispose()

    state = State(url)

    with state.read() as uow:
        for kind, value in (
            ("series_instance_uid", "1.2.3"),
            ("sop_instance_uid", "1.2.3.2"),
            ("accession_number", "A1"),
        ):
            found = uow.volumes.find(ProjectId("p"), {kind: value}, limit=10, after=None)
            assert ["old"] == [volume.volume_id for volume in found]
        assert () == found[0].organs
    state.close()
