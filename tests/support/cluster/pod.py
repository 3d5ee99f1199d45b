"""One pod: its volumes, its containers in their order, and its probes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from rekindle_servicekit.probe import ask
from servers.proxy import Proxy

from cluster.container import Container, Security, Volume
from cluster.image import Image
from cluster.network import Network
from cluster.policies import End
from cluster.store import CannotStart, Manifest, Store

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_INIT_TIMEOUT_S = 60.0


class Pod:
    """Made from a pod's metadata and spec; `account` gives the files of a service account's token, by its name."""

    def __init__(
        self,
        name: str,
        labels: Mapping[str, str],
        spec: Manifest,
        folder: Path,
        account: Callable[[str], dict[str, str]],
    ) -> None:
        self.labels, self.spec = labels, spec
        self._folder = folder
        self._account = account
        self.network = Network()
        ports = {port["name"]: port["containerPort"] for each in spec["containers"] for port in each.get("ports", ())}
        self.end = End(name, labels, ports, self.network.address)
        self.containers = [Container(each["name"], folder / each["name"]) for each in spec["containers"]]
        self._volumes: dict[str, Path] = {}
        #: Lines from this machine, by which the kubelet asks, per port.
        self._lines: dict[int, Proxy] = {}
        self.is_ready = False

    def start(self, store: Store, links: Mapping[str, str], hosts: str) -> None:
        """Init containers to their end, then the others; CannotStart."""
        (self._folder / "hosts").write_text(hosts)
        self._volumes = {each["name"]: self._volume(each, store) for each in self.spec.get("volumes", ())}
        for each in self.spec.get("initContainers", ()):
            first = Container(each["name"], self._folder / each["name"])
            self._run(first, each, store, links)
            deadline = time.monotonic() + _INIT_TIMEOUT_S
            while first.code is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if first.code != 0:
                raise CannotStart(f"init container {first.name} ended with {first.code}: {first.text()}")
        for container, manifest in zip(self.containers, self.spec["containers"], strict=True):
            self._run(container, manifest, store, links)

    def restart(self, store: Store, links: Mapping[str, str]) -> None:
        """Its containers that have ended, once more."""
        for container, manifest in zip(self.containers, self.spec["containers"], strict=True):
            if container.code is not None:
                self._run(container, manifest, store, links)

    def codes(self) -> list[int | None]:
        """Exit codes of the containers; None for one that runs."""
        return [container.code for container in self.containers]

    def said(self) -> str:
        return "\n".join(f"--- {self.end.name}/{each.name} ({each.code})\n{each.text()}" for each in self.containers)

    def is_told(self, kind: str) -> bool:
        """Whether each container's probe of this kind ("readinessProbe", ...) says yes now."""
        return all(self._ask(each[kind]) for each in self.spec["containers"] if kind in each)

    def line_to(self, port: int) -> int:
        """A port of this machine that leads to one of the pod's, at the pod's own address."""
        if port not in self._lines:
            self._lines[port] = Proxy(dial=lambda: self.network.connect(port))
        return self._lines[port].port

    def start_timeout_s(self) -> float:
        """How long its startup probes wait before a container is given up."""
        probes = [each["startupProbe"] for each in self.spec["containers"] if "startupProbe" in each]
        return max((each["periodSeconds"] * each["failureThreshold"] for each in probes), default=30.0)

    def stop(self) -> list[int]:
        """As for a deletion; exit codes."""
        self.is_ready = False
        grace_s = self.spec.get("terminationGracePeriodSeconds", 30)
        return [container.stop(grace_s) for container in self.containers if container.process is not None]

    def close(self) -> None:
        """Leave nothing behind."""
        for container in self.containers:
            if container.process is not None:
                container.stop(0)
        for line in self._lines.values():
            line.close()
        self.network.close()

    def _ask(self, probe: Mapping[str, Any]) -> bool:
        if "httpGet" in probe:
            return self._answers(probe["httpGet"])
        if "grpc" not in probe:
            raise CannotStart(f"a probe of a kind that is not known here: {probe}")
        return ask(f"127.0.0.1:{self.line_to(probe['grpc']['port'])}") == "SERVING"

    def _answers(self, get: Mapping[str, Any]) -> bool:
        port = self.end.ports[get["port"]] if isinstance(get["port"], str) else get["port"]
        try:
            with urlopen(f"http://127.0.0.1:{self.line_to(port)}{get['path']}", timeout=5) as answer:
                return 200 <= answer.status < 400
        except OSError:
            return False

    def _run(self, container: Container, manifest: Manifest, store: Store, links: Mapping[str, str]) -> None:
        image = Image.of(manifest["image"])
        mounts = [
            Volume(self._place(each), each["mountPath"], each.get("readOnly", False) or self._is_fixed(each))
            for each in manifest.get("volumeMounts", ())
        ]
        if self.spec.get("automountServiceAccountToken", True):
            mounts.append(Volume(self._account_volume(), ACCOUNT_FOLDER, True))
        container.start(
            image.command(manifest),
            store.environment(manifest, {**image.environment, **links, "HOSTNAME": self.end.name}),
            image,
            Security.of(self.spec, manifest, image),
            mounts,
            network=self.network.pid,
            hostname=self.end.name,
            hosts=self._folder / "hosts",
        )

    def _place(self, mount: Mapping[str, Any]) -> Path:
        folder = self._volumes[mount["name"]]
        return (folder / mount["subPath"]).resolve() if "subPath" in mount else folder

    def _is_fixed(self, mount: Mapping[str, Any]) -> bool:
        """Secrets and ConfigMaps cannot be written, whatever the mount says."""
        (volume,) = [each for each in self.spec["volumes"] if each["name"] == mount["name"]]
        return "emptyDir" not in volume

    @property
    def _group(self) -> int:
        return self.spec.get("securityContext", {}).get("fsGroup", 0)

    def _volume(self, volume: Mapping[str, Any], store: Store) -> Path:
        folder = self._folder / "volumes" / volume["name"]
        folder.mkdir(parents=True)
        os.chown(folder, 0, self._group)
        folder.chmod(0o2777)
        if "secret" in volume:
            source = volume["secret"]
            store.write(
                "Secret", source["secretName"], folder, mode=source.get("defaultMode", 0o644), group=self._group
            )
        elif "configMap" in volume:
            source = volume["configMap"]
            store.write("ConfigMap", source["name"], folder, mode=source.get("defaultMode", 0o644), group=self._group)
        elif "emptyDir" not in volume:
            raise CannotStart(f"volume {volume['name']} is of a kind that is not known here")
        return folder

    def _account_volume(self) -> Path:
        folder = self._folder / "volumes" / "account"
        if not folder.exists():
            own = Store()
            own.put("Secret", "account", self._account(self.spec.get("serviceAccountName", "default")))
            folder.mkdir(parents=True)
            own.write("Secret", "account", folder, mode=0o640, group=self._group)
        return folder
