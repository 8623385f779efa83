"""Weights whose preprocessing is known, since somebody published it with them."""

from __future__ import annotations

from seg_export.checkpoints.pretrained import PRETRAINED, pretrained_path
from seg_export.families import FAMILIES
from seg_runtime.hashing import file_sha256

__all__ = ["is_known"]


def is_known(sha256: str) -> bool:
    """Whether weights of this SHA-256 are official ones, or come with the package.

    Example:
        >>> is_known("7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69")
        True
    """
    official = [beginning for family in FAMILIES.values() for _, beginning in family.official().values()]
    return bool(sha256) and (sha256.startswith(tuple(official)) or _is_packaged(sha256))


def _is_packaged(sha256: str) -> bool:
    return any(file_sha256(pretrained_path(name)) == sha256 for name in PRETRAINED)
