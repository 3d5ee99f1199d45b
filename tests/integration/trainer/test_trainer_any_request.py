"""The trainer answers requests that no sound client sends with words, and keeps projects apart."""

from __future__ import annotations

from any_request import call_all, only_plausible, wrong_ends
from rekindle.api.common.v1 import admin_pb2, admin_pb2_grpc
from rekindle.api.trainer.v1 import trainer_pb2
from trainer_process import TrainerProcess, get, make_request, train_a_little


def test_no_request_makes_it_fail_or_reach_into_another_project(trainer: TrainerProcess) -> None:
    """Each RPC with each field wrong in turn, and from another project: no incident, and no word of the run."""
    stub = trainer.start()
    request = make_request(trainer)
    stub.StartRun(request, timeout=60)
    train_a_little(stub)
    example = request.spec.training[0]
    known = {
        "project_id": "project-b",
        "run_id": request.run_id,
        "preset": request.spec.preset,
        "recipe": request.spec.recipe,
        "id": "liver",
        "organ_id": "liver",
        "image_digest": example.image_digest,
        "mask_digest": example.mask_digest,
        "case_id": "case",
    }
    admin = admin_pb2_grpc.AdminServiceStub(trainer.channel)
    services = [
        (trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"], stub),
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], admin),
    ]
    apart = call_all(services, known, only_plausible)
    assert [] == [each for each in apart if b"run-1" in each.answer]
    assert trainer_pb2.RUN_STATE_RUNNING == get(stub).state
    outcomes = call_all(services, {**known, "project_id": request.project_id})
    assert [] == wrong_ends([*apart, *outcomes])
    assert "incident" not in (trainer.folder / "service.log").read_text()
