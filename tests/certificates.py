"""A certificate authority for tests, made by openssl."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Certificates", "make_certificates"]

_FOR_LOCALHOST = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Certificates:
    """PEM files.

    Attributes:
        ca: the authority's certificate.
        server, server_key: signed by it, for localhost and 127.0.0.1.
        client: certificate and key of a client in one file, signed by it.
    """

    ca: Path
    server: Path
    server_key: Path
    client: Path


def make_certificates(folder: Path) -> Certificates:
    """Make them in an empty folder. In CI a missing openssl is a failure, elsewhere the test is skipped."""
    if shutil.which("openssl") is None:
        message = "no openssl: apt-get install openssl"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(*new, "-x509", "-subj", "/CN=test", "-keyout", "ca.key", "-out", "ca.pem")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-x509", "-addext", _FOR_LOCALHOST)
    for name in ("server", "client"):
        openssl(*new, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    both = folder / "client-both.pem"
    both.write_bytes((folder / "client.pem").read_bytes() + (folder / "client.key").read_bytes())
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key", both)
