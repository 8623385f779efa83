"""A bundle brings exactly what was packed, or nothing."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from seg_runtime.bundle import open_bundle, write_bundle
from seg_runtime.errors import BadInputError, ModelNotFoundError, RepositoryError
from seg_runtime.repository import Repository

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def bundle(tiny_repo: Path, tmp_path: Path) -> Path:
    images = tmp_path / "xrays" / "images"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(b"an image")
    path = tmp_path / "bundle.tar"
    write_bundle(path, tiny_repo, ["unet_tiny"], [tmp_path / "xrays"])
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def rewrite(path: Path, change: Callable[[Members], Members]) -> None:
    """Write an archive again with its members changed."""
    with tarfile.open(path) as archive:
        members = [(each, archive.extractfile(each).read()) for each in archive.getmembers()]
    with tarfile.open(path, "w") as archive:
        for member, content in change(members):
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_models_and_images_arrive_as_they_were(bundle: Path, tiny_repo: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle, tmp_path / "there")
    spec = Repository(opened.repo).spec("unet_tiny")
    assert spec == Repository(tiny_repo).spec("unet_tiny")
    version = Repository(tiny_repo).version_folder(spec)
    assert files_of(opened.repo / "unet_tiny" / str(spec.version)) == files_of(version)
    assert [(each.name, files_of(each)) for each in opened.data] == [("xrays", {"images/a.png": b"an image"})]


def test_a_bundle_of_the_same_models_is_the_same_file(bundle: Path, tiny_repo: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    write_bundle(again, tiny_repo, ["unet_tiny"], [tmp_path / "xrays"])
    assert again.read_bytes() == bundle.read_bytes()


def _damage(members: Members) -> Members:
    member, content = members[-1]
    return [*members[:-1], (member, content[:-1] + b"?")]


def _climb(members: Members) -> Members:
    manifest = json.loads(members[0][1])
    manifest["files"] = {"triton_repo/../../stolen": "ab"}
    return [(members[0][0], json.dumps(manifest).encode())]


def _link(members: Members) -> Members:
    link = tarfile.TarInfo(members[-1][0].name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [*members[:-1], (link, b"")]


def _other_form(members: Members) -> Members:
    manifest = json.loads(members[0][1]) | {"schema": "edgeseg-bundle/9"}
    return [(members[0][0], json.dumps(manifest).encode()), *members[1:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_damage, "'data/xrays/images/a.png' in .* is damaged: copy the bundle again"),
        (_climb, "has a damaged bundle.json: copy the bundle again"),
        (_link, "has a file that it does not list"),
        (
            _other_form,
            "is a bundle of the form 'edgeseg-bundle/9', and this edgeseg reads 'edgeseg-bundle/1'",
        ),
        (lambda members: members[:-1], "lacks 'data/xrays/images/a.png': copy the bundle again"),
        (lambda members: [*members, (tarfile.TarInfo("more"), b"x")], "does not list, 'more'"),
        (lambda members: members[1:], "is no bundle: write one with"),
        (lambda members: [(members[0][0], b"{]")], "has a damaged bundle.json"),
        (lambda members: [(members[0][0], b"[1]")], "has a damaged bundle.json"),
    ],
)
def test_what_is_not_right_in_every_file_leaves_nothing(
    bundle: Path, tmp_path: Path, change: Callable[[Members], Members], words: str
) -> None:
    rewrite(bundle, change)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BadInputError, match=words):
        open_bundle(bundle, tmp_path / "there")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_bundle_that_is_cut_short_leaves_nothing(bundle: Path, tmp_path: Path, share: float) -> None:
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInputError, match="bundle"):
        open_bundle(bundle, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_bundle_replaces_what_an_earlier_one_left(bundle: Path, tmp_path: Path) -> None:
    old = tmp_path / "there" / "triton_repo" / "old"
    old.mkdir(parents=True)
    open_bundle(bundle, tmp_path / "there")
    assert not old.exists()


def test_what_cannot_be_packed_is_refused(tiny_repo: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "bundle.tar", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelNotFoundError, match=r"no model 'unet_tny' .* did you mean 'unet_tiny'"):
        write_bundle(out, tiny_repo, ["unet_tny"])
    with pytest.raises(BadInputError, match="no files in"):
        write_bundle(out, tiny_repo, (), [empty])
    with pytest.raises(RepositoryError, match="has no built model"):
        write_bundle(out, empty)
    assert not out.exists()
