"""The API server's part: rights and tokens of service accounts, and pods of Jobs that are run by a node."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from kubelet import Kubelet
from kubernetes import client, config
from suites.launchers import wait_for

from cluster.container import signal_first
from cluster.node import Node
from cluster.services import Outside
from cluster.store import Manifest


@dataclass(frozen=True)
class ControlPlane:
    """One namespace of a real API server, as an administrator."""

    kubeconfig: Path
    namespace: str

    @property
    def admin(self) -> client.ApiClient:
        return config.new_client_from_config(str(self.kubeconfig))

    @property
    def outside(self) -> Outside:
        """As pods find it: by the variables that a kubelet gives them."""
        port = urlsplit(self._cluster()["server"]).port
        assert port is not None
        return Outside("kubernetes", 443, port)

    def apply_rights(self, objects: Sequence[Manifest]) -> None:
        """The namespace, with the accounts, roles and bindings of a rendering."""
        admin = self.admin
        core, rights = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
        core.create_namespace({"metadata": {"name": self.namespace}})
        make = {
            "ServiceAccount": core.create_namespaced_service_account,
            "Role": rights.create_namespaced_role,
            "RoleBinding": rights.create_namespaced_role_binding,
        }
        for each in objects:
            if each["kind"] in make:
                make[each["kind"]](self.namespace, dict(each))
        # Pods are admitted once their namespace has its own account.
        names = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"} | {"default"}
        wait_for(lambda: names <= {a.metadata.name for a in core.list_namespaced_service_account(self.namespace).items})

    def token(self, account: str) -> str:
        request = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        core = client.CoreV1Api(self.admin)
        return core.create_namespaced_service_account_token(account, self.namespace, request).status.token

    def account_files(self, account: str) -> dict[str, str]:
        """What a pod that runs under the account has mounted."""
        authority = Path(self._cluster()["certificate-authority"]).read_text()
        return {"token": self.token(account), "ca.crt": authority, "namespace": self.namespace}

    @contextmanager
    def kubelet(self, node: Node) -> Iterator[Kubelet]:
        """Runs the pods that controllers make, on the node."""
        kubelet = Kubelet(self.admin, self.namespace)

        def start(pod: Manifest) -> subprocess.Popen[bytes]:
            process = node.start(pod["metadata"]["name"], pod["metadata"], pod["spec"]).containers[0].process
            assert process is not None
            return process

        kubelet.starts = start
        kubelet.terminates = partial(signal_first, number=signal.SIGTERM)
        kubelet.start()
        try:
            yield kubelet
        finally:
            kubelet.close()

    def _cluster(self) -> dict[str, str]:
        return yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
