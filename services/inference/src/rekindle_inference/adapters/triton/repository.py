"""The model repository: the folder or the part of the object store that Triton reads models from.

A copy that can be made again: packages are kept elsewhere, and what is here may be removed whenever nothing is loaded.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from rekindle.errors import IntegrityError, NotFound
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.objects import Objects as Packages

from rekindle_inference.adapters.triton.config import ModelOptions, render_config
from rekindle_inference.ports import Package

_CHUNK_BYTES = 1024 * 1024


_MARK = "readme.txt"
_ABOUT = (
    b"Models that Triton has loaded, written and removed by Rekindle's inference service. Packages lie elsewhere.\n"
)


class ModelRepository:
    """Writes models as Triton wants them: `<name>/1/model.onnx` and `<name>/config.pbtxt`."""

    def __init__(self, packages: Packages, files: Objects, options: ModelOptions) -> None:
        """`packages` holds `packages/<digest>/model.onnx`; `files` is where Triton looks."""
        self._packages = packages
        self._files = files
        self._options = options
        self._prepared = False

    def prepare(self) -> None:
        """Let it exist: Triton does not start on a bucket where nothing has the repository's prefix."""
        if not self._prepared:
            self._files.put(_MARK, _ABOUT)
            self._prepared = True

    def write(self, name: str, package: Package, model: bytes | None = None) -> None:
        """Make the model complete and right, whatever lies there; `model` spares reading the package.

        NotFound (package), IntegrityError where the package's model is damaged.
        """
        manifest = package.manifest
        if not self._holds(_model_key(name), manifest.model_digest):
            self._replace(_model_key(name), self._read(package) if model is None else model)
        config = render_config(name, package.digest, manifest, self._options).encode()
        # Last: a folder without it is no model.
        if not self._holds(_config_key(name), hashlib.sha256(config).hexdigest()):
            self._replace(_config_key(name), config)

    def remove(self, name: str) -> None:
        """What is loaded stays loaded."""
        for key in (_config_key(name), _model_key(name)):
            self._files.delete(key)

    def model_bytes(self, name: str) -> int:
        """Size of its graph; 0 where somebody has just removed it."""
        with suppress(NotFound):
            return self._files.size(_model_key(name))
        return 0

    def _read(self, package: Package) -> bytes:
        model = self._packages.get(PackageKeys(package.digest).model)
        if hashlib.sha256(model).hexdigest() != package.manifest.model_digest:
            raise IntegrityError(
                f"the stored model of package {package.digest} is damaged: upload the package again",
                reason="DIGEST_MISMATCH",
            )
        return model

    def _holds(self, key: str, digest: str) -> bool:
        """Whether exactly these bytes lie there: Triton does not check what it loads."""
        with suppress(NotFound), self._files.open(key) as stream:
            found = hashlib.sha256()
            while chunk := stream.read(_CHUNK_BYTES):
                found.update(chunk)
            return found.hexdigest() == digest
        return False

    def _replace(self, key: str, data: bytes) -> None:
        self._files.delete(key)
        self._files.put(key, data)


def _model_key(name: str) -> str:
    return f"{name}/1/model.onnx"


def _config_key(name: str) -> str:
    return f"{name}/config.pbtxt"
