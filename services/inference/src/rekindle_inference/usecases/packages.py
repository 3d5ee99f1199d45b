"""Packages in the object store: put there, read back, and proven to work."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from rekindle.errors import IntegrityError, InvalidInput, NotFound
from rekindle.vocabulary import ModelRole, is_sha256
from rekindle_imaging.package import parse_manifest
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.records import ModelVersion, ProjectId
from rekindle_inference.ports import Engine, Package, Serving
from rekindle_inference.usecases.checks import check_project, wrong_field


def store_package(objects: Objects, project_id: str, manifest: bytes, model: Path, model_digest: str) -> str:
    """Store a package and return its digest. The manifest comes last: without it there is no package.

    `model_digest` is the SHA-256 of the file `model`; IntegrityError where the manifest names another.
    """
    check_project(project_id)
    if parse_manifest(manifest).model_digest != model_digest:
        raise IntegrityError(
            "the model that arrived is not the one that the manifest names (model_digest): send it again",
            reason="DIGEST_MISMATCH",
        )
    digest = hashlib.sha256(manifest).hexdigest()
    objects.put_file(PackageKeys(digest).model, model)
    objects.put(PackageKeys(digest).manifest, manifest)
    return digest


def read_package(objects: Objects, digest: str) -> Package:
    """The package of that digest; NotFound, IntegrityError (DIGEST_MISMATCH), InvalidInput (BAD_MANIFEST)."""
    if not is_sha256(digest):
        raise wrong_field("package_digest", "must be a SHA-256 in lower-case hex")
    if not objects.exists(PackageKeys(digest).manifest):
        raise NotFound(f"there is no package {digest}: upload it first", reason="PACKAGE_NOT_FOUND")
    data = objects.get(PackageKeys(digest).manifest)
    if hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError(f"the stored manifest of package {digest} is damaged", reason="DIGEST_MISMATCH")
    return Package(digest=digest, manifest=parse_manifest(data))


def package_of(objects: Objects, model: ModelVersion) -> Package:
    """The package of a version, as what it serves as. Errors as `read_package`."""
    return serving_as(read_package(objects, model.package_digest), model.project_id, model.role, model.version)


def serving_as(package: Package, project_id: ProjectId, role: ModelRole, version: int) -> Package:
    return replace(package, serving=Serving(project_id=project_id, role=role, version=version))


def prove_package(
    objects: Objects, engine: Engine, package: Package, cancellation: Cancellation, least_tolerance: float = 0.0
) -> None:
    """Let the engine check the package's graph and run its reference batch.

    `least_tolerance` is a relative difference that is let pass also where the package allows less. IntegrityError
    (DIGEST_MISMATCH), InvalidInput: the engine's reasons, or SMOKE_TEST where the answer to the reference batch is
    another than the manifest promises.
    """
    model = objects.get(PackageKeys(package.digest).model)
    if hashlib.sha256(model).hexdigest() != package.manifest.model_digest:
        raise IntegrityError(
            f"the stored model of package {package.digest} is damaged: upload the package again",
            reason="DIGEST_MISMATCH",
        )
    engine.check(package, model)
    try:
        _smoke_test(engine, package, cancellation, least_tolerance)
    except Exception:
        engine.forget(package)
        raise


def _smoke_test(engine: Engine, package: Package, cancellation: Cancellation, least_tolerance: float) -> None:
    reference = package.manifest.reference
    shape = (reference.batch, *package.manifest.input_shape)
    images = np.random.default_rng(reference.input_seed).standard_normal(shape, dtype=np.float32)
    logits = engine.predict(package, images, cancellation)
    if not np.isfinite(logits).all():
        raise _failed("its logits are not finite")
    sample = np.asarray(reference.logits_sample, dtype=np.float64)
    if sample.size > logits.size:
        raise _failed("the manifest promises more logits than there are")
    difference = float(np.abs(logits.ravel()[: sample.size] - sample).max())
    if difference > max(reference.tolerance, least_tolerance) * max(1.0, float(np.abs(logits).max())):
        raise _failed(f"its logits differ by {difference:.3g} from those that the manifest promises")


def _failed(what: str) -> InvalidInput:
    return InvalidInput(
        f"the package does not compute what its manifest says: {what}; export it again", reason="SMOKE_TEST"
    )
