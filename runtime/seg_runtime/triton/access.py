"""Keys of a Triton server: the headers that carry them, the files that hold them, and who may use which.

A server that `seg-serve` starts answers strangers, but refuses whatever changes it. That takes a secret which
is made at every start, and which the server's own user finds in a file on the same machine. With an API key,
the server also refuses inference to who does not send that key.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from seg_runtime.errors import BadInputError
from seg_runtime.triton.address import Address, TlsOptions

__all__ = [
    "API_KEY",
    "API_KEY_VARIABLE",
    "SECRET",
    "ServerAccess",
    "check_api_key",
    "find_secret",
    "key_header",
    "private_folder",
    "read_api_key",
    "secret_folder",
    "secret_name",
]

API_KEY = "edgeseg-api-key"
"""Header of the key that clients are given. Lower case, as gRPC wants it."""
SECRET = "edgeseg-secret"
"""Header of the secret that opens what changes a server."""
API_KEY_VARIABLE = "EDGESEG_API_KEY"

_KEY = re.compile(r"[!-~]{16,256}")


@dataclass(frozen=True)
class ServerAccess:
    """How a command gets into a server: files, so that no key is in a command line or a record.

    Attributes:
        api_key_file: holds the API key; None takes the one in EDGESEG_API_KEY, if any.
        ca: PEM file of certificates to trust; None trusts those of the system.
        client_cert: PEM file with this client's certificate chain and its private key.
    """

    api_key_file: str | None = None
    ca: str | None = None
    client_cert: str | None = None

    def api_key(self) -> str | None:
        """The key to send. Raises BadInputError for a file or variable that holds none."""
        if self.api_key_file is not None:
            return read_api_key(Path(self.api_key_file))
        key = os.environ.get(API_KEY_VARIABLE)
        return check_api_key(key, API_KEY_VARIABLE) if key else None

    def tls(self) -> TlsOptions | None:
        """Options for `seg_runtime.connect`, None where none was given."""
        if self.ca is None and self.client_cert is None:
            return None
        certificate = Path(self.client_cert) if self.client_cert else None
        return TlsOptions(Path(self.ca) if self.ca else None, certificate, certificate)

    def require_server(self, url: str | None) -> None:
        """Raises BadInputError when something was given and there is no server to use it for."""
        given = {
            "--api-key-file": self.api_key_file,
            "--ca": self.ca,
            "--client-cert": self.client_cert,
        }
        for option, value in given.items():
            if value is not None and url is None:
                raise BadInputError(f"{option} is for a server: give its --url, or leave it out")


def key_header(name: str, value: str, grpc: bool) -> dict[str, str]:
    """The header in which Triton expects a key."""
    return {f"triton-grpc-protocol-{name}" if grpc else name: value}


def check_api_key(key: str, source: str) -> str:
    """The key, if Triton and HTTP headers can carry it.

    Args:
        key: what was given.
        source: where it comes from, for the message, which never repeats the key.

    Raises:
        BadInputError: too short, too long, or other characters.
    """
    if not _KEY.fullmatch(key):
        raise BadInputError(
            f"the API key of {source} has {len(key)} characters; it must be 16 to 256 visible ASCII "
            f"characters without blanks: make one with  openssl rand -hex 32"
        )
    return key


def read_api_key(path: Path) -> str:
    """The API key in a file, without the end of its line.

    Raises:
        BadInputError: the file cannot be read, other users can read it, or it holds no usable key.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise BadInputError(f"the API key's file '{path}' cannot be read: {error.strerror}") from error
    if mode & 0o004:
        raise BadInputError(f"every user can read the API key in '{path}': run  chmod 600 {path}")
    return check_api_key(text.strip("\r\n"), f"'{path}'")


def secret_folder() -> Path:
    """Where this user's servers leave their secrets.

    With the shared memory that they are for: what can reach the one (the same machine, or a container that
    has its /dev/shm) finds the other, whatever its environment says about folders.
    """
    return Path("/dev/shm") / f"seg-serve-{os.getuid()}"


def secret_name(grpc: bool, port: int) -> str:
    """The name of the file for a port."""
    return f"{'grpc' if grpc else 'http'}-{port}"


def private_folder(path: Path) -> bool:
    """Whether it is a folder of this user, and no link, that no other user can open."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def find_secret(address: Address) -> str | None:
    """The secret of this user's server at an address of this machine, None where there is none.

    Read at each use, because a server that is started again has another one.
    """
    parts = urlsplit(str(address))
    folder = secret_folder()
    path = folder / secret_name(address.grpc, parts.port or 0)
    if not (private_folder(folder) and path.is_file() and _is_this_machine(parts.hostname or "")):
        return None
    try:
        return path.read_text(encoding="ascii") or None
    except OSError:
        return None


def _is_this_machine(host: str) -> bool:
    """Whether every address of a host is one of this machine: only such addresses can be listened on."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        for family, kind, protocol, _, location in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(location)
    except OSError:
        return False
    return True
