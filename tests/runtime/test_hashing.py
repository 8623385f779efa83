"""SHA-256 of files against the standard library's of their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from seg_runtime.hashing import file_sha256


def test_hash_of_files_is_that_of_their_bytes_one_after_the_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(bytes(range(256)) * 5000)  # more than one piece
    two.write_bytes(b"weights")
    assert file_sha256(one) == hashlib.sha256(one.read_bytes()).hexdigest()
    assert file_sha256(one, two) == hashlib.sha256(one.read_bytes() + two.read_bytes()).hexdigest()
