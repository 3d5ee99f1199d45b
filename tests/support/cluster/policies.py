"""Which connections the network policies of a namespace let through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """A pod by its labels and named ports, or, without labels, an address outside."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = "203.0.113.1"


def lets_through(policies: Sequence[Policy], source: End, target: End, port: int) -> bool:
    """Out at one end and in at the other; `port` is the target's own."""
    return all(
        _allows(policies, own, other, target, port, direction)
        for own, other, direction in ((source, target, "Egress"), (target, source, "Ingress"))
    )


def _allows(policies: Sequence[Policy], own: End, other: End, target: End, port: int, direction: str) -> bool:
    """A pod that no policy of this direction selects is open; else one rule of any of them has to fit."""
    ruling = [each["spec"] for each in policies if direction in each["spec"]["policyTypes"] and _rules(each, own)]
    return not ruling or any(_fits(rule, other, target, port) for rule in _all_rules(ruling, direction))


def _rules(policy: Policy, pod: End) -> bool:
    return bool(pod.labels) and _selects(policy["spec"]["podSelector"], pod)


def _all_rules(specs: Sequence[Mapping[str, Any]], direction: str) -> Iterator[Mapping[str, Any]]:
    for spec in specs:
        for rule in spec.get(direction.lower()) or ():
            yield {"peers": rule.get("to") or rule.get("from") or (), "ports": rule.get("ports") or ()}


def _fits(rule: Mapping[str, Any], other: End, target: End, port: int) -> bool:
    to_peer = not rule["peers"] or any(_is(peer, other) for peer in rule["peers"])
    allowed = [target.ports.get(each["port"], each["port"]) for each in rule["ports"] if each.get("protocol") != "UDP"]
    return to_peer and (not rule["ports"] or port in allowed)


def _is(peer: Mapping[str, Any], other: End) -> bool:
    if "ipBlock" in peer:
        return ip_address(other.address) in ip_network(peer["ipBlock"]["cidr"])
    # Pods of other namespaces do not exist here.
    return "namespaceSelector" not in peer and bool(other.labels) and _selects(peer["podSelector"], other)


def _selects(selector: Mapping[str, Any], pod: End) -> bool:
    return selector.get("matchLabels", {}).items() <= pod.labels.items()
