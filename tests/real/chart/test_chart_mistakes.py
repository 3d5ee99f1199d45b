"""The node on which the chart is run finds mistakes of manifests as a cluster would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.container import why_not
from cluster.node import Node
from cluster.site import HERE, Site, named, rendered
from cluster.store import CannotStart

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
#: What is wrong with the scheduler's pod -> how it is noticed.
WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "account": (lambda pod: pod.update(serviceAccountName="nobody"), "no service account nobody"),
    "root": (lambda pod: pod["securityContext"].update(runAsUser=0), "would run as root"),
    "key": (lambda pod: _secret_in(pod).update(key="none"), "has no key none"),
    "place": (lambda pod: _mount_of(pod, "tls").update(mountPath="/elsewhere"), "tls.crt cannot be read: No such file"),
    "mode": (lambda pod: _volume_of(pod, "tls")["secret"].update(defaultMode=0o400), "Permission denied"),
    "variable": (
        lambda pod: pod["containers"][0]["env"].append({"name": "REKINDLE_SCHEDULER_NO", "value": "1"}),
        "unknown setting REKINDLE_SCHEDULER_NO",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_cluster_would_not_start_does_not_start(site: Site, node: Node, tmp_path: Path, what: str) -> None:
    """A mistake in the manifests is found here as it would be there, before the pod is ready."""
    spoil, said = WRONG[what]
    site.fill(node.store, tmp_path / "tls")
    objects = rendered(tmp_path / "values", HERE)
    for each in objects:
        node.apply(each)
    template = named(objects, "Deployment", "rekindle-scheduler")["spec"]["template"]
    spoil(template["spec"])
    with pytest.raises((CannotStart, AssertionError), match=said):
        node.wait_ready([node.start("rekindle-scheduler", template["metadata"], template["spec"])])


def _secret_in(pod: Any) -> Any:
    return next(item["valueFrom"]["secretKeyRef"] for item in pod["containers"][0]["env"] if "valueFrom" in item)


def _mount_of(pod: Any, name: str) -> Any:
    return next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == name)


def _volume_of(pod: Any, name: str) -> Any:
    return next(volume for volume in pod["volumes"] if volume["name"] == name)
