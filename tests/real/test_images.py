"""What the Dockerfiles install and run, carried out in empty environments: the images without their builder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockerfiles import ROOT, SERVICES, stages

#: What pip takes from the machine that runs the tests, as build arguments would bring it.
_PIP = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
#: What an image must not bring along.
_FORBIDDEN = {
    "scheduler": ["numpy", "torch", "SimpleITK", "onnxruntime"],
    "inference": ["torch", "monai"],
    "trainer": [],
}


def _everybody_reaches(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


#: Where this Python lies in somebody's home, only they can run what is made of it.
_CHANGES_USER = os.geteuid() == 0 and _everybody_reaches(Path(sys.base_prefix))


class Image:
    """A folder with what the build stage of a service's Dockerfile leaves behind."""

    def __init__(self, service: str, folder: Path) -> None:
        self.service, self._folder = service, folder
        self.build, self.last = stages(service)
        self._base = folder / "base"
        self.state = folder / "state"
        self.state.mkdir()

    def _here(self, text: str) -> str:
        for path, name in (("/src", "src"), ("/wheels", "wheels"), ("/opt/rekindle", "rekindle")):
            text = re.sub(rf"(?<![\w.]){path}\b", str(self._folder / name), text)
        return text.replace("/var/lib/rekindle", str(self.state))

    def make(self) -> None:
        """The base image's Python, then COPY and RUN of the build stage as they are written."""
        subprocess.run([sys.executable, "-m", "venv", self._base], check=True)
        source = self._folder / "src"
        source.mkdir()
        environment = {name: self._here(value) for name, value in self.build.environment().items()}
        for word, arguments in self.build.instructions:
            if word == "COPY":
                self._copy(*arguments.split())
            elif word == "RUN":
                subprocess.run(
                    ["/bin/sh", "-ec", self._here(arguments)],
                    cwd=source,
                    env={
                        **_PIP,
                        **environment,
                        "PATH": f"{self._base / 'bin'}:/usr/bin:/bin",
                        "HOME": str(self._folder),
                    },
                    check=True,
                )

    def _copy(self, what: str, to: str) -> None:
        origin, target = ROOT / what, self._folder / "src" / to
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
        else:
            shutil.copy(origin, target)

    def python(self, code: str) -> str:
        python = self._folder / "rekindle" / "bin" / "python"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout

    def start(self, **settings: str) -> subprocess.Popen[str]:
        """ENTRYPOINT with ENV and nothing else, as nobody in particular where that is possible."""
        return self._run(self.last.command("ENTRYPOINT"), settings)

    def probe(self, **settings: str) -> int:
        """HEALTHCHECK with the same environment; its exit code."""
        process = self._run(self.last.command("HEALTHCHECK"), settings)
        process.communicate(timeout=30)
        return process.returncode

    def _run(self, command: list[str], settings: dict[str, str]) -> subprocess.Popen[str]:
        prefix = f"REKINDLE_{self.service.upper()}_"
        environment = {name: self._here(value) for name, value in self.last.environment().items()}
        environment |= {prefix + name: value for name, value in settings.items()}
        user = 10001 if _CHANGES_USER else None
        return subprocess.Popen(
            [self._here(part) for part in command],
            cwd=self.state,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )


@pytest.fixture(scope="module", params=SERVICES)
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    """Each service's image; in a folder that an unprivileged user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="rekindle-image-"))
    try:
        folder.chmod(0o755)
        image = Image(request.param, folder)
        image.make()
        if _CHANGES_USER:
            os.chown(image.state, 10001, 10001)
        yield image
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(900)
def test_image_holds_its_service_alone(image: Image) -> None:
    """It imports its service; pip and what the service must not bring are not there; versions are those pinned."""
    names = ["pip", "hatchling", "pytest", *_FORBIDDEN[image.service]]
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert "[]" == image.python(code).strip()
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    installed = image.python(
        "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version.partition('+')[0])"
    )
    by_name = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for line in installed.splitlines():
        name, version = line.split()
        if not name.startswith("rekindle"):
            assert by_name[name.lower().replace("_", "-")] == version


def test_image_refuses_to_serve_everybody(image: Image) -> None:
    """As it is, the container ends at once and says what to set: it listens beyond itself."""
    process = image.start()
    _, told = process.communicate(timeout=60)
    assert 2 == process.returncode
    assert "callers_file" in told
    assert "Traceback" not in told


def test_container_starts_is_healthy_and_ends(image: Image) -> None:
    """With plain text allowed it serves as an unprivileged user, its health check passes, and SIGTERM ends it."""
    address, health = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    settings = {"ADDRESS": address, "HEALTH_ADDRESS": health}
    process = image.start(**settings)
    try:
        assert image.probe(**settings) in (0, 1)
        deadline = time.monotonic() + 90
        while (code := image.probe(**settings)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.3)
        assert 0 == code
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert 0 == process.returncode
    finally:
        process.kill()
        process.communicate()
    assert 0 != image.probe(**settings)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
