"""Certificates for tests, from authorities that are made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """A certificate with its chain, and its key."""

    certificate: Path
    key: Path


class Authority:
    """A private authority; its files lie in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.certificate = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.certificate))

    def issue(self, name: str, *identities: str, into: Files | None = None) -> Files:
        """A certificate for these names, in new files or in place of those of `into`."""
        issued = self._ca.issue_cert(*identities)
        files = into or Files(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        # As a secret store replaces files: all at once, by renaming.
        for path, content in (
            (files.key, issued.private_key_pem.bytes()),
            (files.certificate, b"".join(part.bytes() for part in issued.cert_chain_pems)),
        ):
            staged = path.with_suffix(".staged")
            staged.write_bytes(content)
            staged.replace(path)
        return files

    def issue_server(self, name: str = "server", into: Files | None = None) -> Files:
        """A certificate for this machine."""
        return self.issue(name, "localhost", "127.0.0.1", into=into)
