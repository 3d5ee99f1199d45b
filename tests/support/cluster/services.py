"""What the names of Services lead to, for each pod that calls them: the pods behind, by the Service's own ports."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servers.proxy import Proxy

from cluster.policies import End, lets_through
from cluster.store import Manifest

if TYPE_CHECKING:
    from cluster.pod import Pod


@dataclass(frozen=True)
class Outside:
    """A server that is no pod: by this name and port in the cluster, on `real_port` of this machine.

    Network policies hold it for `address`, or for a pod with these labels and ports.
    """

    name: str
    port: int
    real_port: int
    address: str = "203.0.113.1"
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def end(self) -> End:
        return End(self.name, self.labels, self.ports, self.address)


class Services:
    """Every Service and every server outside has an address of its own, the same in all pods."""

    def __init__(self, namespace: str, pods: Callable[[], Sequence[Pod]], outside: Sequence[Outside]) -> None:
        self._namespace = namespace
        self._pods = pods
        self._outside = outside
        self._numbers, self._turns = itertools.count(1), itertools.count()
        self._addresses: dict[str, str] = {}
        self._services: dict[str, Manifest] = {}
        self._lines: list[Proxy] = []
        self.policies: list[Manifest] = []
        #: Connections that a policy stopped: (from, to, port).
        self.denied: list[tuple[str, str, int]] = []
        for each in outside:
            self._address(each.name)

    def apply(self, service: Manifest) -> None:
        name = service["metadata"]["name"]
        self._services[name] = service
        if service["spec"].get("clusterIP") != "None":
            self._address(name)

    def hosts(self) -> str:
        """What names mean in a pod that is started now, as lines of /etc/hosts."""
        lines = ["127.0.0.1 localhost"]
        for name, address in self._addresses.items():
            ends = ("", f".{self._namespace}", f".{self._namespace}.svc", f".{self._namespace}.svc.cluster.local")
            lines.append(f"{address} " + " ".join(name + end for end in (ends if name in self._services else ("",))))
        return "\n".join(lines) + "\n"

    def links(self, *, all_services: bool) -> dict[str, str]:
        """The variables by which pods are told of Services; without service links, of the API server alone."""
        found = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        for name, service in self._services.items() if all_services else ():
            if name in self._addresses:
                word, port = name.upper().replace("-", "_"), service["spec"]["ports"][0]["port"]
                found |= {f"{word}_SERVICE_HOST": self._addresses[name], f"{word}_SERVICE_PORT": str(port)}
                found |= {f"{word}_PORT": f"tcp://{self._addresses[name]}:{port}"}
        return found

    def serve(self, pod: Pod) -> None:
        """Let this pod reach whatever there is at this moment."""
        for each in self._outside:
            self._line(pod, self._addresses[each.name], each.port, lambda each=each: self._dial_out(pod, each))
        elsewhere = {each.name for each in self._outside}
        for name, service in self._services.items():
            for port in service["spec"]["ports"] if name in self._addresses and name not in elsewhere else ():
                self._line(
                    pod,
                    self._addresses[name],
                    port["port"],
                    lambda service=service, port=port: self._dial(pod, service, port["targetPort"]),
                )

    def endpoints(self, service: Manifest) -> list[Pod]:
        """The pods that a Service leads to at this moment."""
        selector = service["spec"]["selector"]
        also_unready = service["spec"].get("publishNotReadyAddresses", False)
        return [
            pod for pod in self._pods() if selector.items() <= pod.labels.items() and (pod.is_ready or also_unready)
        ]

    def selected(self, labels: Mapping[str, str]) -> Iterator[Manifest]:
        for service in self._services.values():
            if labels.items() <= service["metadata"]["labels"].items():
                yield service

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def _address(self, name: str) -> str:
        # 127.0.0.1 is where the API server is expected: its certificate holds no other address of this machine.
        default = "127.0.0.1" if name == "kubernetes" else f"127.0.1.{next(self._numbers)}"
        return self._addresses.setdefault(name, default)

    def _line(self, pod: Pod, address: str, port: int, dial: Callable[[], socket.socket]) -> None:
        # On a port on which the pod itself listens everywhere there is no room; nothing in the chart calls its like.
        if port not in pod.end.ports.values():
            self._lines.append(Proxy(listener=pod.network.listen(address, port), dial=dial))

    def _dial(self, source: Pod, service: Manifest, target_port: str | int) -> socket.socket:
        """To one pod after the other, as connections come; a port's name that the pod has not got leads nowhere."""
        pods = self.endpoints(service)
        turn = next(self._turns) % max(1, len(pods))
        for pod in pods[turn:] + pods[:turn]:
            port = pod.end.ports.get(target_port) if isinstance(target_port, str) else target_port
            if port is not None:
                self._check(source, pod.end, port)
                with contextlib.suppress(OSError):
                    return pod.network.connect(port)
        raise ConnectionRefusedError(f"no pod behind {service['metadata']['name']}")

    def _dial_out(self, source: Pod, outside: Outside) -> socket.socket:
        self._check(source, outside.end, outside.port)
        return socket.create_connection(("127.0.0.1", outside.real_port), timeout=5)

    def _check(self, source: Pod, target: End, port: int) -> None:
        if not lets_through(self.policies, source.end, target, port):
            self.denied.append((source.end.name, target.name, port))
            raise ConnectionRefusedError(f"{source.end.name} may not reach {target.name}:{port}")
