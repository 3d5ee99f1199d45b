"""What runs in the cluster: restricted pods, secrets by reference, the flows that exist, one narrow role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from chart import EVERYTHING, PRODUCTION, Rendered, evaluation, render

CASES = {"production": lambda: render(PRODUCTION), "everything": lambda: render(EVERYTHING), "evaluation": evaluation}


@pytest.fixture(params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return CASES[request.param]()


def test_every_pod_is_restricted(rendered: Rendered) -> None:
    """The pod security standard "restricted", and a read-only root on top."""
    for name, pod in rendered.pods():
        security = pod["securityContext"]
        assert (True, "RuntimeDefault") == (security["runAsNonRoot"], security["seccompProfile"]["type"]), name
        assert security["runAsUser"] > 0
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"], name
            assert "cpu" in container["resources"]["requests"], name


def test_only_the_launcher_has_a_token(rendered: Rendered) -> None:
    """Every other pod runs without one; where the trainer starts processes it needs none either."""
    with_token = {name for name, pod in rendered.pods() if pod.get("automountServiceAccountToken") is not False}
    has_jobs = bool(rendered.of("Role"))
    assert ({"r-rekindle-trainer"} if has_jobs else set()) == with_token


def test_no_pod_is_told_of_services_by_variables(rendered: Rendered) -> None:
    """Of a Service `rekindle-scheduler` they would be REKINDLE_SCHEDULER_..., and no setting has such a name."""
    assert [] == [name for name, pod in rendered.pods() if pod.get("enableServiceLinks") is not False]


def test_no_credential_is_rendered() -> None:
    """A production release makes no Secret, and whatever is secret comes by reference."""
    rendered = render(EVERYTHING)
    assert [] == rendered.of("Secret")
    for name, pod in rendered.pods():
        for container in pod["containers"]:
            for item in container.get("env", ()):
                if re.search("(PASSWORD|SECRET_KEY|ACCESS_KEY|ACCESS_KEY_ID|DATABASE_URL)$", item["name"]):
                    assert "secretKeyRef" in item.get("valueFrom", {}), (name, item["name"])
    assert "postgresql://" not in rendered.text


def test_the_role_is_what_the_launcher_needs() -> None:
    """Jobs, their pods and logs; services only where a run has several nodes; nothing of the whole cluster."""
    one, several = render(PRODUCTION), render(EVERYTHING)
    rules = {
        (group, resource): rule["verbs"]
        for rule in one.of("Role")[0]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rules == {
        ("batch", "jobs"): ["create", "get", "list", "watch", "delete"],
        ("", "pods"): ["list", "watch"],
        ("", "pods/log"): ["get"],
    }
    assert 4 == len(several.of("Role")[0]["rules"])
    assert [] == [*one.of("ClusterRole"), *one.of("ClusterRoleBinding")]


#: Who may call whom: (from, to, port).
FLOWS = {
    ("scheduler", "inference", "grpc"),
    ("scheduler", "trainer", "grpc"),
    ("inference", "triton", "grpc"),
    ("test", "scheduler", "grpc"),
    ("test", "inference", "grpc"),
    ("test", "trainer", "grpc"),
}


def test_the_flows_between_components_are_the_ones_that_exist() -> None:
    """Each is let out at one end and in at the other; nothing but inference reaches Triton."""
    policies = {
        each["metadata"]["name"].removeprefix("r-rekindle-"): each["spec"] for each in render().of("NetworkPolicy")
    }
    assert {"Ingress", "Egress"} == set(policies["default-deny"]["policyTypes"])
    assert not policies["default-deny"].get("ingress")
    out = {(name, target, port) for name, spec in policies.items() for target, port in _ends(spec.get("egress"), "to")}
    assert FLOWS == {flow for flow in out if flow[1] is not None}
    into_triton = set(_ends(policies["triton"].get("ingress"), "from"))
    assert {("inference", "grpc")} == into_triton
    for source, target, port in FLOWS:
        allowed = set(_ends(policies[target].get("ingress"), "from"))
        assert (source, port) in allowed or (None, port) in allowed, (source, target)


def _ends(rules: Any, side: str) -> list[tuple[str | None, Any]]:
    """Component and port of each peer; None for a peer that is no component of the release."""
    return [
        (_component(peer), port["port"])
        for rule in rules or ()
        for peer in rule.get(side, ())
        for port in rule.get("ports", ())
    ]


def _component(peer: Mapping[str, Any]) -> str | None:
    return peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
