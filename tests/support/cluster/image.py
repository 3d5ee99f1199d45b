"""What stands for an image here: its Dockerfile's words, and this environment's interpreter and packages."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from dockerfiles import ROOT, SERVICES, stages
from servers.triton import installed_triton

from cluster.store import CannotStart, Manifest

#: Of the base image.
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
#: By the Dockerfiles' useradd.
USER, HOME = 10001, "/var/lib/rekindle"


@dataclass(frozen=True)
class Image:
    """The last stage of a service's Dockerfile."""

    entrypoint: list[str]
    environment: dict[str, str]
    workdir: str
    user: int
    #: What lies in it beside a small Debian.
    content: tuple[tuple[Path, str], ...]
    #: Folders that its interpreter looks for where they are here, so that they must be seen there above any volume.
    sources: tuple[Path, ...] = ()

    @classmethod
    def of(cls, reference: str) -> Image:
        """By the name in front of tag or digest: .../rekindle/<service>, or Triton's."""
        if "/nvidia/tritonserver" in reference:
            return cls._triton()
        service = reference.split("@")[0].rpartition("/")[2].split(":")[0]
        if service not in SERVICES or f"rekindle/{service}" not in reference:
            raise CannotStart(f"there is no image {reference} here")
        last = stages(service)[-1]
        return cls(
            entrypoint=last.command("ENTRYPOINT"),
            environment={"PATH": _PATH, "HOME": HOME, **last.environment()},
            workdir=last.all("WORKDIR")[-1],
            user=int(last.all("USER")[-1].split(":")[0]),
            # What the build stage would have installed lies in this environment and, to be edited, in this tree.
            content=((Path(sys.prefix), "/opt/rekindle"), *_interpreter()),
            sources=(*ROOT.glob("sdk/src"), *ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src")),
        )

    @classmethod
    def _triton(cls) -> Image:
        """The server without a GPU that the tests have, where the real image has its own."""
        # Its links name the place where it was installed, which need not be there inside.
        program = (installed_triton() / "tritonserver").resolve()
        tool = next(parent for parent in program.parents if parent.name == "venv").parent
        inside = Path("/opt/triton") / program.relative_to(tool)
        return cls(
            entrypoint=[],
            environment={
                "PATH": f"/opt/triton/venv/bin:{inside.parent}:{_PATH}",
                "LD_LIBRARY_PATH": str(inside.parents[3] / "nvidia_pytriton.libs"),
                "REKINDLE_TRITON_THREADS": "1",
            },
            workdir="/",
            user=0,
            content=((tool, "/opt/triton"), (tool / "backends", "/opt/tritonserver/backends"), *_interpreter()),
        )

    def command(self, container: Manifest) -> list[str]:
        """`command` stands for the image's ENTRYPOINT, `args` come after it."""
        return [*container.get("command", self.entrypoint), *container.get("args", ())]


def root_script(image: Image, folder: str) -> list[str]:
    """Shell lines that lay out an image's root in an empty file system."""
    where = shlex.quote(folder)
    lines = [
        f"cd {where}",
        "mkdir -m 1777 tmp",
        "mkdir -p old usr proc sys dev/shm etc opt run root home var/lib var/log mnt srv",
        "ln -s ../run var/run",
        "mount -t proc proc proc",
        "mount -t sysfs -o ro sysfs sys",
        "mount -t tmpfs -o mode=1777,size=64m tmpfs dev/shm",
        "for each in null zero full random urandom; do touch dev/$each; mount --bind /dev/$each dev/$each; done",
        "ln -s /proc/self/fd dev/fd",
        "for each in bin sbin lib lib64; do if [ -L /$each ]; then cp -P /$each .; else mkdir $each; "
        "mount -o bind,ro /$each $each; fi; done",
        "cp /etc/ld.so.cache etc/",
        "echo 'hosts: files dns' > etc/nsswitch.conf",
        f"printf 'root:x:0:0::/root:/bin/sh\\nrekindle:x:{USER}:{USER}::{HOME}:/usr/sbin/nologin\\n' > etc/passwd",
        f"printf 'root:x:0:\\nrekindle:x:{USER}:\\n' > etc/group",
        f"install -d -o {USER} -g {USER} -m 700 .{HOME}",
    ]
    content = ((Path("/usr"), "/usr"), *image.content)
    return lines + [line for source, target in content for line in bind(source, target, read_only=True)]


def bind(source: Path, target: str, *, read_only: bool) -> list[str]:
    """Shell lines that mount a folder or a file below the current directory."""
    place, origin = shlex.quote(f".{target}"), shlex.quote(str(source))
    make = f"mkdir -p {place}" if source.is_dir() else f"mkdir -p $(dirname {place}); touch {place}"
    return [make, f"mount -o bind{',ro' if read_only else ''} {origin} {place}"]


def _interpreter() -> tuple[tuple[Path, str], ...]:
    base = Path(sys.base_prefix).resolve()
    return () if base.is_relative_to("/usr") else ((base, str(base)),)
