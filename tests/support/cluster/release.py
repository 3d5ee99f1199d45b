"""A rendered release, taken through its life in the order that Helm keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from cluster.node import Node
from cluster.pod import Pod
from cluster.store import Manifest

#: Helm's order of kinds, for the kinds of the chart.
_ORDER = (
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "Role",
    "RoleBinding",
    "Service",
    "Pod",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
)


class Release:
    """`skips`: names of what this machine has otherwise, and does not run."""

    def __init__(self, node: Node, objects: Sequence[Manifest], skips: Sequence[str] = ()) -> None:
        self._node = node
        self._skips = skips
        self._hooks = [each for each in objects if _hooks(each)]
        self._plain = sorted((each for each in objects if not _hooks(each)), key=_place)
        self.pods: list[Pod] = []

    def install(self) -> None:
        """Hooks to their end, then everything else, until all Deployments are ready."""
        self._run_hooks("pre-install")
        for each in self._plain:
            self._node.apply(each)
        self.pods = self._start_all()
        self._node.wait_ready(self.pods)

    def upgrade(self) -> None:
        """The hooks, beside what runs; then new pods, and once they are ready the old ones end."""
        self._run_hooks("pre-upgrade")
        old, self.pods = self.pods, self._start_all()
        self._node.wait_ready(self.pods)
        _stop(old)

    def test(self) -> str:
        """What the pods of `helm test` say; AssertionError where one fails."""
        return self._run_hooks("test")

    def uninstall(self) -> None:
        """Every pod is told to end; AssertionError where one does not end well."""
        _stop(self.pods)

    def _start_all(self) -> list[Pod]:
        return [
            self._start(each)
            for each in self._plain
            if each["kind"] in ("Deployment", "StatefulSet") and each["metadata"]["name"] not in self._skips
            for _ in range(each["spec"]["replicas"])
        ]

    def _start(self, owner: Manifest) -> Pod:
        template = owner["spec"]["template"]
        return self._node.start(owner["metadata"]["name"], template["metadata"], template["spec"])

    def _run_hooks(self, event: str) -> str:
        said = ""
        for each in sorted((each for each in self._hooks if event in _hooks(each)), key=_weight):
            self._node.apply(each)
            for pod, timeout_s in self._pods_of(each):
                codes = self._node.finished(pod, timeout_s)
                assert {0} == set(codes), f"{event} hook {each['metadata']['name']} failed:\n{pod.said()}"
                said += pod.said()
        return said

    def _pods_of(self, hook: Manifest) -> Iterator[tuple[Pod, float]]:
        if hook["kind"] == "Job":
            yield self._start(hook), hook["spec"]["activeDeadlineSeconds"]
        elif hook["kind"] == "Pod":
            yield self._node.start(hook["metadata"]["name"], hook["metadata"], hook["spec"]), 300.0


def _stop(pods: Sequence[Pod]) -> None:
    """All at once, as they are told; AssertionError where one does not end well."""
    with ThreadPoolExecutor(len(pods)) as pool:
        codes = list(pool.map(Pod.stop, pods))
    assert [] == [pod.said() for pod, each in zip(pods, codes, strict=True) if set(each) != {0}]


def _hooks(manifest: Manifest) -> list[str]:
    text = manifest["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    return [event.strip() for event in text.split(",") if event]


def _place(manifest: Manifest) -> int:
    return _ORDER.index(manifest["kind"]) if manifest["kind"] in _ORDER else len(_ORDER)


def _weight(hook: Manifest) -> tuple[int, int, str]:
    annotations, name = hook["metadata"]["annotations"], hook["metadata"]["name"]
    return int(annotations.get("helm.sh/hook-weight", "0")), _place(hook), name
