"""What a Job and its pods say of an attempt: whether it goes on, and in words why it waits or how it ended.

Pure: takes what the API answered, as plain dictionaries, and the moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from rekindle_trainer.adapters.kubernetes_job import CONTAINER, QUEUE
from rekindle_trainer.ports import ProcessStatus

Record = Mapping[str, Any]

#: A container that waits for one of these will not start by itself.
_BROKEN: Final = {
    "ErrImagePull": "its image cannot be pulled",
    "ImagePullBackOff": "its image cannot be pulled",
    "ErrImageNeverPull": "its image is not on the node",
    "InvalidImageName": "the name of its image is not valid",
    "CreateContainerConfigError": "a Secret or ConfigMap that it needs is missing",
    "CreateContainerError": "its container cannot be made",
    "RunContainerError": "its container cannot be started",
}
#: Why a pod was taken away, as its own status says on releases without the condition DisruptionTarget.
_TAKEN: Final = {"Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated"}
#: Codes of processes that ended because others did: stopped, or lost them.
_FOLLOWED: Final = (None, 143, 76)
_OUT_OF_MEMORY: Final = "OOMKilled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a pod may fail to start before its run fails."""

    #: No node takes it; 0 for ever.
    unschedulable_s: float = 3600.0
    #: Image, secret or volume.
    broken_s: float = 300.0


def read_status(job: Record, pods: Sequence[Record], now: datetime, patience: Patience) -> ProcessStatus:
    """The state of the attempt whose Job and pods these are."""
    return replace(_status(job, pods, now, patience), began_at=_began_at(pods), ended_at=_ended_at(job))


def _status(job: Record, pods: Sequence[Record], now: datetime, patience: Patience) -> ProcessStatus:
    conditions = _conditions(job)
    if conditions.get("Complete", {}).get("status") == "True":
        return ProcessStatus(is_running=False, exit_code=0)
    failed = conditions.get("Failed", {})
    if failed.get("status") == "True":
        return _failed(job, failed, pods)
    if job.get("spec", {}).get("suspend"):
        return ProcessStatus(is_running=True, reason=_suspended(job))
    alive = [pod for pod in pods if _phase(pod) in ("Pending", "Running", "Unknown", "")]
    if not alive:
        return ProcessStatus(is_running=True, reason="waits for its pod to be made")
    return _first_trouble(alive, now, patience) or ProcessStatus(is_running=True)


def _failed(job: Record, failed: Record, pods: Sequence[Record]) -> ProcessStatus:
    if failed.get("reason") == "DeadlineExceeded":
        limit_s = job.get("spec", {}).get("activeDeadlineSeconds")
        return ProcessStatus(
            is_running=False, is_final=True, reason=f"the Job was ended: it took longer than its limit of {limit_s} s"
        )
    ended = [status for pod in _newest_first(pods) if (status := _pod_end(pod)) is not None]
    # Of several nodes one breaks down first and the others follow: what tells most counts.
    ended.sort(key=lambda status: (not status.was_preempted, status.exit_code in _FOLLOWED))
    if ended:
        return ended[0]
    return ProcessStatus(is_running=False, reason="the Job failed and its pods are gone: see the cluster's events")


def _pod_end(pod: Record) -> ProcessStatus | None:
    """How this pod ended, where it did not end well."""
    status = pod.get("status", {})
    if _phase(pod) == "Succeeded":
        return None
    terminated = _container(pod).get("state", {}).get("terminated") or {}
    code = terminated.get("exitCode")
    if taken := _taken(pod):
        return ProcessStatus(is_running=False, exit_code=code, was_preempted=True, reason=taken)
    if terminated.get("reason") == _OUT_OF_MEMORY:
        limit = _memory_limit(pod)
        return ProcessStatus(
            is_running=False, exit_code=code, reason=f"the training process was killed: out of memory (limit {limit})"
        )
    if code is not None:
        return ProcessStatus(is_running=False, exit_code=code)
    reason = status.get("reason")
    return ProcessStatus(is_running=False, reason=f"its pod failed ({reason})" if reason else "its pod failed")


def _taken(pod: Record) -> str:
    """In words why the pod was taken off its node, through no fault of its own; else empty."""
    status = pod.get("status", {})
    disruption = _conditions(pod).get("DisruptionTarget", {})
    if disruption.get("status") == "True":
        return f"its pod was taken off its node ({disruption.get('reason') or 'disruption'})"
    reason = status.get("reason")
    return f"its pod was taken off its node ({reason})" if reason in _TAKEN else ""


def _first_trouble(pods: Sequence[Record], now: datetime, patience: Patience) -> ProcessStatus | None:
    for pod in pods:
        if _phase(pod) != "Pending":
            continue
        scheduled = _conditions(pod).get("PodScheduled", {})
        if scheduled.get("status") == "False":
            message = scheduled.get("message") or scheduled.get("reason") or "no node takes it"
            return _waiting(f"no node takes its pod: {message}", _since(scheduled, pod), now, patience.unschedulable_s)
        waiting = _container(pod).get("state", {}).get("waiting") or {}
        if what := _BROKEN.get(waiting.get("reason", "")):
            words = f"{what} ({waiting['reason']})"
            # Without patience none of these would pass: an image can be pushed, a Secret made, meanwhile.
            return _waiting(words, _since(scheduled, pod), now, patience.broken_s or 1e-9)
        return ProcessStatus(is_running=True, reason="its pod is being started")
    return None


def _waiting(words: str, since: datetime | None, now: datetime, allowed_s: float) -> ProcessStatus:
    waited_s = (now - since).total_seconds() if since else 0.0
    if allowed_s and waited_s >= allowed_s:
        return ProcessStatus(is_running=False, is_final=True, reason=f"{words}; given up after {round(allowed_s)} s")
    return ProcessStatus(is_running=True, reason=words)


def _suspended(job: Record) -> str:
    queue = job.get("metadata", {}).get("labels", {}).get(QUEUE)
    return f"waits for room in Kueue's queue {queue}" if queue else "its Job is suspended"


def _conditions(record: Record) -> dict[str, Record]:
    return {condition["type"]: condition for condition in record.get("status", {}).get("conditions") or ()}


def _phase(pod: Record) -> str:
    return pod.get("status", {}).get("phase", "")


def _container(pod: Record) -> Record:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in statuses if status.get("name") == CONTAINER), {})


def _memory_limit(pod: Record) -> str:
    containers = pod.get("spec", {}).get("containers") or ()
    limits = (container.get("resources", {}).get("limits", {}).get("memory") for container in containers)
    return next(filter(None, limits), "of the node")


def _newest_first(pods: Sequence[Record]) -> list[Record]:
    return sorted(pods, key=lambda pod: pod.get("metadata", {}).get("creationTimestamp") or "", reverse=True)


def _since(condition: Record, pod: Record) -> datetime | None:
    return _moment(condition.get("lastTransitionTime") or pod.get("metadata", {}).get("creationTimestamp"))


def _began_at(pods: Sequence[Record]) -> datetime | None:
    """When the last of them began to work; None where none has."""
    states = [_container(pod).get("state", {}) for pod in pods]
    found = [_moment((state.get("running") or state.get("terminated") or {}).get("startedAt")) for state in states]
    return max((moment for moment in found if moment is not None), default=None)


def _ended_at(job: Record) -> datetime | None:
    conditions = _conditions(job)
    ends = (conditions[kind] for kind in ("Complete", "Failed") if kind in conditions)
    return next((_moment(end.get("lastTransitionTime")) for end in ends if end.get("status") == "True"), None)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
