"""Who may do what: one table of the permission that each RPC needs, one of the permissions that each role has.

A new RPC gets a line here; without one it is refused to all callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from rekindle.errors import PermissionDenied

from rekindle_servicekit.principal import ADMIN_ROLE, Principal


class Permission(StrEnum):
    """What a caller may be allowed to do. Each RPC needs exactly one."""

    #: Calls without credentials: health, and nothing else.
    OPEN = "open"
    #: Calls of every known caller: reflection, the service's capabilities.
    DISCOVER = "discover"
    #: See projects, cases, rounds, reports, model versions.
    PROJECT_READ = "project.read"
    #: Make projects and change them.
    PROJECT_WRITE = "project.write"
    #: Read images and masks.
    VOLUME_READ = "volume.read"
    #: Send images and masks.
    VOLUME_WRITE = "volume.write"
    #: Lease cases, label them, hand them in.
    ANNOTATE = "annotate"
    #: Judge the submissions of others.
    REVIEW = "review"
    #: Have volumes segmented, and follow the results.
    SEGMENT = "segment"
    #: Start and stop training, register and activate model versions.
    OPERATE = "operate"
    #: Calls of one service to another.
    SERVE = "serve"
    #: Check, move and erase what is stored.
    ADMINISTER = "administer"


_P = Permission

#: Full name of a service -> its RPCs -> what each needs.
_SERVICES: Final[Mapping[str, Mapping[str, Permission]]] = {
    "grpc.health.v1.Health": {
        "Check": _P.OPEN,
        "Watch": _P.OPEN,
    },
    "grpc.reflection.v1alpha.ServerReflection": {
        "ServerReflectionInfo": _P.DISCOVER,
    },
    "rekindle.api.common.v1.InfoService": {
        "GetServerInfo": _P.DISCOVER,
    },
    "rekindle.api.common.v1.AdminService": {
        "Verify": _P.ADMINISTER,
        "ExportProject": _P.ADMINISTER,
        "ImportProject": _P.ADMINISTER,
    },
    "rekindle.api.scheduler.v1.SchedulerService": {
        "CreateProject": _P.PROJECT_WRITE,
        "GetProject": _P.PROJECT_READ,
        "ListProjects": _P.PROJECT_READ,
        "StartProject": _P.PROJECT_WRITE,
        "UpdatePolicy": _P.PROJECT_WRITE,
        "AddSeedCase": _P.PROJECT_WRITE,
        "ListSeedCases": _P.PROJECT_READ,
        "RegisterCases": _P.PROJECT_WRITE,
        "CloseRegistration": _P.PROJECT_WRITE,
        "GetCase": _P.PROJECT_READ,
        "ListCases": _P.PROJECT_READ,
        "MarkCase": _P.ANNOTATE,
        "LeaseNextCase": _P.ANNOTATE,
        "LeaseCase": _P.ANNOTATE,
        "RenewLease": _P.ANNOTATE,
        "ReleaseLease": _P.ANNOTATE,
        "ListMyLeases": _P.ANNOTATE,
        "TakeUpLease": _P.ANNOTATE,
        "StartSession": _P.ANNOTATE,
        "GetSession": _P.ANNOTATE,
        "ListMySessions": _P.ANNOTATE,
        "EndSession": _P.ANNOTATE,
        "SaveDraft": _P.ANNOTATE,
        "GetDraft": _P.ANNOTATE,
        "ListDrafts": _P.ANNOTATE,
        "DiscardDraft": _P.ANNOTATE,
        "Submit": _P.ANNOTATE,
        "ListSubmissions": _P.PROJECT_READ,
        "WithdrawSubmission": _P.ANNOTATE,
        "ReviewSubmission": _P.REVIEW,
        "GetRound": _P.PROJECT_READ,
        "ListRounds": _P.PROJECT_READ,
        "TrainNow": _P.PROJECT_WRITE,
        "RetryProject": _P.PROJECT_WRITE,
        "WatchRounds": _P.PROJECT_READ,
        "ListLedger": _P.PROJECT_READ,
        "GetReport": _P.PROJECT_READ,
        "PurgeGroup": _P.ADMINISTER,
        "GetPurge": _P.ADMINISTER,
        "ListPurges": _P.ADMINISTER,
    },
    "rekindle.api.inference.v1.VolumeService": {
        "UploadVolume": _P.VOLUME_WRITE,
        "UploadStudy": _P.VOLUME_WRITE,
        "DownloadVolume": _P.VOLUME_READ,
        "GetVolume": _P.VOLUME_READ,
        "BatchGetVolumes": _P.VOLUME_READ,
        "GetReceipt": _P.VOLUME_READ,
        "PurgeVolumes": _P.SERVE,
        "FindVolumes": _P.VOLUME_READ,
        "CreateUpload": _P.VOLUME_WRITE,
        "PutChunk": _P.VOLUME_WRITE,
        "QueryUpload": _P.VOLUME_WRITE,
        "FinalizeUpload": _P.VOLUME_WRITE,
        "AbortUpload": _P.VOLUME_WRITE,
        "ReadVolume": _P.VOLUME_READ,
        "RankSlices": _P.VOLUME_READ,
    },
    "rekindle.api.inference.v1.InferenceService": {
        "Segment": _P.SEGMENT,
        "PredictVolumes": _P.OPERATE,
        "UploadPackage": _P.OPERATE,
        "RegisterModel": _P.OPERATE,
        "GetModel": _P.PROJECT_READ,
        "ListModels": _P.PROJECT_READ,
        "ActivateModel": _P.OPERATE,
    },
    "rekindle.api.inference.v1.SegmentationService": {
        "CreateSegmentation": _P.SEGMENT,
        "GetSegmentation": _P.SEGMENT,
        "ListSegmentations": _P.SEGMENT,
        "CancelSegmentation": _P.SEGMENT,
        "WatchSegmentation": _P.SEGMENT,
        "GetResult": _P.SEGMENT,
        "ListResults": _P.SEGMENT,
        "WatchResults": _P.SEGMENT,
        "PublishResult": _P.SERVE,
        "SetQualityLimits": _P.PROJECT_WRITE,
        "GetQualityLimits": _P.SEGMENT,
    },
    "rekindle.api.trainer.v1.TrainerService": {
        "StartRun": _P.OPERATE,
        "GetRun": _P.PROJECT_READ,
        "ListRuns": _P.PROJECT_READ,
        "CancelRun": _P.OPERATE,
        "WatchRun": _P.PROJECT_READ,
        "PurgeExamples": _P.SERVE,
        "SetTrainingLimits": _P.OPERATE,
        "GetTrainingLimits": _P.PROJECT_READ,
    },
}

#: Full method name, as gRPC writes it (``/package.Service/Method``) -> what it needs.
PERMISSIONS: Final[Mapping[str, Permission]] = {
    f"/{service}/{method}": permission
    for service, methods in _SERVICES.items()
    for method, permission in methods.items()
}

_VIEWER = frozenset({_P.OPEN, _P.DISCOVER, _P.PROJECT_READ})
_ANNOTATOR = _VIEWER | {_P.VOLUME_READ, _P.VOLUME_WRITE, _P.ANNOTATE}

#: Role -> what it may do.
ROLES: Final[Mapping[str, frozenset[Permission]]] = {
    ADMIN_ROLE: frozenset(Permission),
    #: Runs projects, training and models.
    "operator": _VIEWER | {_P.PROJECT_WRITE, _P.VOLUME_READ, _P.VOLUME_WRITE, _P.SEGMENT, _P.OPERATE},
    #: Labels, and judges labels.
    "reviewer": _ANNOTATOR | {_P.REVIEW},
    "annotator": _ANNOTATOR,
    #: A PACS or its gateway: studies in, masks out; sees no project's work.
    "integrator": frozenset({_P.OPEN, _P.DISCOVER, _P.VOLUME_READ, _P.VOLUME_WRITE, _P.SEGMENT}),
    #: The scheduler, calling inference and the trainer.
    "service": _VIEWER | {_P.VOLUME_READ, _P.OPERATE, _P.SERVE},
    #: Looks on; sees no pixels.
    "viewer": _VIEWER,
}


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """All that these roles may do together; unknown ones add nothing."""
    return frozenset[Permission]().union(*(ROLES.get(role, frozenset()) for role in roles))


def check_permission(principal: Principal, method: str, table: Mapping[str, Permission] = PERMISSIONS) -> None:
    """PermissionDenied unless one of the caller's roles may call `method`; a method without a line is refused."""
    needed = table.get(method)
    if needed is None:
        raise PermissionDenied(
            f"{method} is in no table of permissions, so nobody may call it: it needs a line in "
            "rekindle_servicekit.permissions",
            reason="UNLISTED_METHOD",
        )
    if needed in permissions_of(principal.roles):
        return
    holders = ", ".join(role for role, permissions in ROLES.items() if needed in permissions)
    own = ", ".join(sorted(principal.roles)) or "none"
    raise PermissionDenied(
        f"{method.rpartition('/')[2]} needs the permission {needed}, which these roles have: {holders}; "
        f"yours: {own}. Ask an administrator for one of them",
        reason="MISSING_PERMISSION",
        metadata={"permission": needed.value},
    )


def main() -> None:
    """Print what each RPC needs and which roles have it."""
    for method, permission in PERMISSIONS.items():
        holders = ", ".join(role for role, permissions in ROLES.items() if permission in permissions)
        print(f"{method[1:]:72} {permission:14} {holders}")


if __name__ == "__main__":
    main()
