"""A real Kubernetes API server with its Job controllers, where its programs are at hand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.tools import ROOT, installed

#: Holds `up` and `down`, which start and stop the control plane; large, and so no part of the repository.
TOOLS = Path(os.environ.get("REKINDLE_TEST_KUBERNETES", ROOT.parent / "shared" / "tools" / "kube"))


@contextmanager
def running_cluster(folder: Path) -> Iterator[Path]:
    """The kubeconfig of an administrator, while the cluster runs. There are no nodes."""
    path = f"{os.environ['PATH']}:{installed('etcd') / 'usr' / 'bin'}"
    started = subprocess.run(
        [TOOLS / "up", folder],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    kubeconfig = folder / "kubeconfig"
    # The server signs its own certificate; the client shall check it as it would elsewhere.
    authority = f'certificate-authority: "{folder / "certs" / "apiserver.crt"}"'
    kubeconfig.write_text(kubeconfig.read_text().replace("insecure-skip-tls-verify: true", authority))
    try:
        yield kubeconfig
    finally:
        subprocess.run([TOOLS / "down", folder], check=True, capture_output=True, timeout=60)
