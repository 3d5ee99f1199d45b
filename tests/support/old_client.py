"""What somebody's program does with the client: run as a process, on the client of a kept version of the API.

``python old_client.py work ADDRESS INFERENCE TRAINER FOLDER`` labels one case of a project of its own;
``python old_client.py read ADDRESS`` reads every record of a service that uses words which the client does not know.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rekindle
from rekindle import Client
from rekindle.config import HeldOut, Organ, Policy


def work(address: str, inference: str, trainer: str, folder: Path) -> dict[str, object]:
    """Create, upload, register, start with an imported model, lease, submit, list."""
    with Client.connect(address, inference=inference, trainer=trainer) as client:
        policy = Policy(sizes=[2], held_out=HeldOut(number=0), preset="tiny", recipe="default")
        project = client.create_project("kept", [Organ("liver", 6), Organ("spleen", 1)], policy=policy)
        project.add_seed_case(folder / "image.nii.gz", folder / "mask.nii.gz", modality="CT")
        cases = [project.add_case(folder / f"case{index}.nii.gz") for index in range(2)]
        project.close_registration()
        model = project.import_model((folder / "manifest.json").read_bytes(), (folder / "model.onnx").read_bytes())
        project.start(igniter=model)
        lease = project.lease_next(wait_s=60)
        assert lease is not None
        with lease:
            coarse = lease.coarse_label()
            assert coarse is not None
            lease.submit(coarse.data, {"liver": "accepted", "spleen": "accepted"})
        segmented = client.segment(folder / "image.nii.gz", project_id=project.id)
        return {
            "cases": len(cases),
            "image": len(project.download(cases[0].volume_id).data),
            "segmented": len(segmented.mask.data),
            "submissions": [item.case_id == lease.case.id for item in project.submissions()],
            "states": sorted(case.state for case in project.cases()),
            "rounds": len(project.rounds()),
            "serving": [item.active for item in project.models()],
            "runs": len(project.runs()),
            "project": client.project(project.id).name,
        }


def read(address: str) -> dict[str, object]:
    """The words of everything that has a state."""
    with Client.connect(address, inference=address, trainer=address) as client:
        project = client.project("p")
        return {
            "project": project.state,
            "organ": project.modality,
            "case": project.case("c").state,
            "mark": project.case("c").mark,
            "submission": next(project.submissions()).review_state,
            "round": project.round(1).state,
            "model": project.model("m").role,
            "run": project.run("r").state,
        }


if __name__ == "__main__":
    did = {"work": work, "read": read}[sys.argv[1]]
    *addresses, last = sys.argv[2:]
    answer = did(*addresses, Path(last)) if sys.argv[1] == "work" else did(last)  # type: ignore[operator]
    print(json.dumps({**answer, "client": rekindle.__file__}))
