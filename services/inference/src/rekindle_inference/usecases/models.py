"""Model versions: register packages, list them, move the project's pointer."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from rekindle.errors import InvalidInput, ModelNotReady, NotFound, RekindleError, VersionConflict, quoted_id
from rekindle.vocabulary import ModelRole, Organ
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.pages import Page, Paging
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.records import ModelVersion, ModelVersionId, ProjectId
from rekindle_inference.ports import Engine, Observer, Package, Unobserved
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.checks import check_organs, check_project
from rekindle_inference.usecases.packages import package_of, prove_package, read_package, serving_as

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What the use cases of models work with."""

    state: State
    objects: Objects
    engine: Engine
    #: Least relative difference from reference logits that is let pass.
    smoke_tolerance: float = 0.0
    observer: Observer = field(default_factory=Unobserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    model: ModelVersion
    #: None where no version was active before.
    previous: ModelVersionId | None


def register_model(
    models: Models,
    request: RequestKey,
    *,
    project_id: str,
    role: ModelRole,
    package_digest: str,
    organs: Sequence[Organ],
    cancellation: Cancellation,
) -> ModelVersion:
    """Make a stored package a version of a project, once it has proven to work; once per role.

    NotFound, IntegrityError, InvalidInput: ORGANS_MISMATCH, BAD_MANIFEST, the engine's reasons, SMOKE_TEST.
    """
    project, wanted = check_project(project_id), check_organs(organs)
    with models.state.read() as uow:
        known = _registered(uow, request, project, role, package_digest)
    if known is None:
        with models.observer.publication():
            package = read_package(models.objects, package_digest)
            _check_same_organs(package, wanted)
            known = _prove_and_add(models, request, project, role, package, wanted, cancellation)
    # The same package may come again with other organs, which it does not predict.
    if [(o.id, o.label_value) for o in known.organs] != [(o.id, o.label_value) for o in wanted]:
        raise _other_organs(known.organs)
    return known


def _prove_and_add(
    models: Models,
    request: RequestKey,
    project: ProjectId,
    role: ModelRole,
    package: Package,
    organs: tuple[Organ, ...],
    cancellation: Cancellation,
) -> ModelVersion:
    """The version, with the number under which it was proven: an engine names by it what it loads."""
    while True:
        with models.state.read() as uow:
            number = uow.models.next_version(project)
        proven = serving_as(package, project, role, number)
        prove_package(models.objects, models.engine, proven, cancellation, models.smoke_tolerance)
        with models.state.write() as uow:
            known = _registered(uow, request, project, role, package.digest)
            if known is None and uow.models.next_version(project) == number:
                known = _add(uow, project, role, package, organs)
                uow.requests.add(request, known.model_version_id.encode())
        if known is None or known.version != number:
            # Another package took the number meanwhile, or somebody registered this one under another.
            models.engine.forget(proven)
        if known is not None:
            return known


def get_model(models: Models, project_id: str, model_version_id: str | None) -> ModelVersion:
    """One version by id, or the active one (None). NotFound, ModelNotReady where none is active."""
    with models.state.read() as uow:
        return require_model(uow, check_project(project_id), model_version_id)


def list_models(models: Models, project_id: str, paging: Paging) -> Page[ModelVersion]:
    """A page of a project's versions, newest first; the place of one is its version."""
    (before,) = paging.after
    with models.state.read() as uow:
        versions = uow.models.page(check_project(project_id), limit=paging.limit, before_version=before or None)
    return paging.page(versions, lambda model: [model.version])


def activate_model(
    models: Models, request: RequestKey, *, project_id: str, model_version_id: str, expected_current: str
) -> Activated:
    """Move the pointer, if it is where the caller believes it to be (empty: nowhere), to a version that is ready.

    Where the version cannot be made ready the pointer stays, and what served goes on serving. VersionConflict,
    NotFound, and the errors of loading a package: InvalidInput (MODEL_NOT_LOADABLE), DependencyUnavailable.
    """
    project = check_project(project_id)
    expected = ModelVersionId(expected_current) if expected_current else None
    with models.state.read() as uow:
        answered = uow.requests.find(request) is not None
        wanted = None if answered else require_model(uow, project, model_version_id)
        active = uow.models.active(project)
    if wanted is not None:
        if expected != (active.model_version_id if active else None):
            raise _moved(active)
        models.engine.load(package_of(models.objects, wanted))
    activated = _move_pointer(models, request, project, model_version_id, expected)
    _keep_what_serves(models, project, activated)
    return activated


def _move_pointer(
    models: Models, request: RequestKey, project: ProjectId, model_version_id: str, expected: ModelVersionId | None
) -> Activated:
    with models.state.write() as uow:
        answered = uow.requests.find(request)
        if answered is not None:
            known = json.loads(answered)
            return Activated(model=require_model(uow, project, known["model"]), previous=known["previous"])
        wanted = require_model(uow, project, model_version_id)
        if not uow.models.move_pointer(project, expected=expected, to=wanted.model_version_id):
            raise _moved(uow.models.active(project))
        answer = json.dumps({"model": wanted.model_version_id, "previous": expected})
        uow.requests.add(request, answer.encode())
        return Activated(model=require_model(uow, project, model_version_id), previous=expected)


def _keep_what_serves(models: Models, project: ProjectId, activated: Activated) -> None:
    """The active version and the one before it, for a rollback; the pointer has moved, whatever becomes of this."""
    with models.state.read() as uow:
        before = None if activated.previous is None else uow.models.get(project, activated.previous)
    try:
        served = [package_of(models.objects, model) for model in (activated.model, before) if model is not None]
        models.engine.keep(project, served)
    except RekindleError as error:
        _log.warning("no model was unloaded after a switch: %s", error, extra={"action": "engine.keep"})


def require_model(uow: UnitOfWork, project_id: ProjectId, model_version_id: str | None) -> ModelVersion:
    """A version of the project by id, or the active one (None). NotFound, ModelNotReady."""
    if model_version_id is None:
        active = uow.models.active(project_id)
        if active is None:
            raise ModelNotReady("no model version of this project is active: register one and activate it")
        return active
    found = uow.models.get(project_id, ModelVersionId(model_version_id))
    if found is None:
        raise NotFound(
            f"there is no model version {quoted_id(model_version_id)} in this project", reason="MODEL_NOT_FOUND"
        )
    return found


def _registered(
    uow: UnitOfWork, request: RequestKey, project: ProjectId, role: ModelRole, digest: str
) -> ModelVersion | None:
    answered = uow.requests.find(request)
    if answered is not None:
        return require_model(uow, project, answered.decode())
    return uow.models.of_package(project, role, digest)


def _add(
    uow: UnitOfWork, project: ProjectId, role: ModelRole, package: Package, organs: tuple[Organ, ...]
) -> ModelVersion:
    lineage = package.manifest.lineage
    model = ModelVersion(
        model_version_id=ModelVersionId(str(uuid4())),
        project_id=project,
        role=role,
        version=uow.models.next_version(project),
        package_digest=package.digest,
        organs=organs,
        modality=package.manifest.modality,
        created_at=uow.now,
        weights_digest=lineage.weights_digest,
        snapshot_digest=lineage.snapshot_digest,
        trained_on_purged=uow.models.has_learnt_from_purged(
            project, lineage.snapshot_digest, lineage.initial_weights_digest
        ),
    )
    uow.models.add(model)
    return model


def _check_same_organs(package: Package, organs: tuple[Organ, ...]) -> None:
    predicted = package.manifest.organs
    if [(o.id, o.label_value) for o in predicted] != [(o.id, o.label_value) for o in organs]:
        raise _other_organs(predicted)


def _other_organs(predicted: Sequence[Organ]) -> InvalidInput:
    listed = ", ".join(f"{organ.id}={organ.label_value}" for organ in predicted)
    return InvalidInput(
        f"the package predicts {listed}: the project must have exactly these organs, in this order",
        reason="ORGANS_MISMATCH",
    )


def _moved(active: ModelVersion | None) -> VersionConflict:
    current = "" if active is None else active.model_version_id
    return VersionConflict(
        f"expected_current is not the active model version: {current or 'none'} is; read it and decide again",
        metadata={"current": current},
    )
