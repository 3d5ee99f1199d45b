"""Handles as plain data, the same for every command's JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rekindle.leases import Lease
from rekindle.models import Model
from rekindle.projects import Project
from rekindle.runs import Run


def describe_project(project: Project) -> dict[str, Any]:
    """A project with its policy."""
    return {
        "id": project.id,
        "name": project.name,
        "state": project.state,
        "state_reason": project.state_reason,
        "modality": project.modality,
        "organs": [asdict(organ) for organ in project.organs],
        "registration_open": project.registration_open,
        "current_round": project.current_round,
        "active_model_version_id": project.active_model_version_id,
        "counts": project.counts,
        "policy": asdict(project.policy),
    }


def describe_lease(lease: Lease) -> dict[str, Any]:
    """A lease and the case it is of."""
    return {
        "id": lease.id,
        "case_id": lease.case.id,
        "round": lease.round,
        "predicted_minutes": lease.case.predicted_minutes,
        "started": lease.started.isoformat(),
        "expires": lease.expires.isoformat(),
    }


def describe_model(model: Model) -> dict[str, Any]:
    """A model version."""
    return {
        "id": model.id,
        "version": model.version,
        "role": model.role,
        "active": model.active,
        "package_digest": model.package_digest,
        "weights_digest": model.weights_digest,
        "snapshot_digest": model.snapshot_digest,
        "trained_on_purged": model.trained_on_purged,
    }


def describe_run(run: Run) -> dict[str, Any]:
    """A training run."""
    return {
        "id": run.id,
        "kind": run.kind,
        "state": run.state,
        "reason": run.reason,
        "attempts": run.attempts,
        "train_seconds": run.train_seconds,
        "gpu_seconds": run.gpu_seconds,
        "weights_digest": run.weights_digest,
        "snapshot_digest": run.snapshot_digest,
        "held_out_dice": run.held_out_dice(),
    }
