"""The proof on aarch64: how masks are compared, what is missing is said, and what the record holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from microbench import aarch64, arm_root
from microbench.aarch64 import LOWEST_IOU, Aarch64Result, ComparedMask, Emulated, compare_masks
from microbench.arm_root import make_arm_python, run
from seg_bench.doctor.targets import TARGETS
from seg_bench.json_fields import from_json
from seg_runtime.errors import BadInputError, ParityError
from seg_runtime.files.images import write_mask

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "bench" / "results" / "aarch64.json"


def write_results(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    """A folder as `seg-run segment` leaves one."""
    folder.mkdir()
    rows = []
    for name, mask in masks.items():
        path = folder / f"{name}_mask.png"
        write_mask(path, mask.astype(np.uint8), binary=True)
        rows.append({"path": f"xrays/{name}.png", "mask": str(path), "timings_ms": {"infer": 2.0}})
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def square(size: int) -> np.ndarray:
    mask = np.zeros((8, 8), bool)
    mask[:size, :size] = True
    return mask


def test_compared_masks_have_their_own_iou_and_count_of_differing_pixels(tmp_path: Path) -> None:
    here = write_results(tmp_path / "here", {"same": square(4), "other": square(4)})
    there = write_results(tmp_path / "there", {"other": square(5), "same": square(4)})
    same, other = compare_masks(here, there)
    assert (same.image, same.iou, same.differing_px) == ("same.png", 1.0, 0)
    assert (other.image, other.differing_px, other.foreground_px) == ("other.png", 9, 16)
    assert other.iou == pytest.approx(16 / 25)
    assert other.size_hw == (8, 8)


@pytest.mark.parametrize("there", [{}, {"one": square(4)}, {"one": square(4), "three": square(4)}])
def test_a_mask_missing_on_one_side_is_no_success(tmp_path: Path, there: dict[str, np.ndarray]) -> None:
    here = write_results(tmp_path / "here", {"one": square(4), "two": square(4)})
    with pytest.raises(BadInputError, match="has masks of"):
        compare_masks(here, write_results(tmp_path / "there", there))


def test_no_masks_at_all_are_no_success(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="has masks of"):
        compare_masks(write_results(tmp_path / "here", {}), write_results(tmp_path / "there", {}))


@pytest.mark.parametrize(
    ("present", "missing"),
    [((), "qemu-aarch64-static is not installed: run  apt-get install qemu-user-static"),
     (("qemu-aarch64-static",), "apt-get is not installed")],
)  # fmt: skip
def test_a_missing_program_is_named_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], missing: str
) -> None:
    for name in present:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="ascii")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputError, match=missing):
        make_arm_python(ROOT, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_failing_step_is_told_with_the_last_line_of_its_program() -> None:
    code = "import sys; print('first', file=sys.stderr); print('no space left', file=sys.stderr); sys.exit(1)"
    with pytest.raises(BadInputError, match=r"^unpacking failed: no space left$"):
        run([sys.executable, "-c", code], "unpacking")


def test_the_command_says_what_to_do_without_the_model(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "microbench.aarch64", "--out", str(tmp_path / "record.json")]
    done = subprocess.run([*call, "--repo", str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "seg-export unet --pretrained lung" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize(("iou", "accepted"), [(1.0, True), (0.9999, True), (0.9998, False)])
def test_masks_that_differ_too_much_fail_after_the_record_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iou: float, accepted: bool
) -> None:
    """The emulation itself is replaced; what follows it is the command's own."""
    (tmp_path / "unet_lung" / "1").mkdir(parents=True)
    masks = (
        ComparedMask("a.png", (8, 8), 16, 0, 1.0, 2.0, 3.0),
        ComparedMask("b.png", (8, 8), 16, 1, iou, 2.0, 3.0),
    )
    emulated = Emulated("Linux aarch64", "cortex-a76", "qemu 7.2", "3.11.2", {})
    monkeypatch.setattr(aarch64, "make_arm_python", lambda *_: None)
    monkeypatch.setattr(aarch64, "resolve_wheels", lambda *_: {})
    monkeypatch.setattr(aarch64, "_segment", lambda *_: masks)
    monkeypatch.setattr(aarch64, "_describe", lambda *_: emulated)
    out = tmp_path / "record.json"
    done = CliRunner().invoke(aarch64.app, ["--out", str(out), "--repo", str(tmp_path)])
    assert from_json(Aarch64Result, json.loads(out.read_text(encoding="utf-8"))).lowest_iou == iou
    assert (done.exception is None) is accepted
    assert accepted or isinstance(done.exception, ParityError)


def test_the_emulated_processor_is_one_that_a_kernel_would_describe() -> None:
    """ONNX Runtime crashes on an x86 description, so ours must have the fields of an Arm one."""
    fields = dict(line.split("\t: ") for line in arm_root._CPUINFO.format(number=1).strip().splitlines()[:3])
    assert fields["processor"] == "1" and "asimddp" in fields["Features"].split()


def test_the_committed_record_proves_equal_masks_on_aarch64() -> None:
    result = from_json(Aarch64Result, json.loads(RECORD.read_text(encoding="utf-8")))
    assert result.emulated.system.endswith("aarch64") and "x86_64" in result.machine.system
    assert "torch" not in result.emulated.packages and "onnxruntime" in result.emulated.packages
    assert len(result.images) >= 2
    assert result.lowest_iou == min(image.iou for image in result.images) >= LOWEST_IOU
    assert all(0.05 < image.foreground_px / np.prod(image.size_hw) < 0.95 for image in result.images)


def test_the_committed_record_has_wheels_for_the_pythons_of_every_jetson() -> None:
    wheels = json.loads(RECORD.read_text(encoding="utf-8"))["wheels"]
    jetsons = {target.python for target in TARGETS.values() if target.jetpack}
    assert wheels.keys() == jetsons
    assert all("onnxruntime" in packages and "tritonclient" in packages for packages in wheels.values())


def test_the_page_states_the_figures_of_the_record() -> None:
    result = from_json(Aarch64Result, json.loads(RECORD.read_text(encoding="utf-8")))
    page = " ".join((ROOT / "docs" / "jetson.md").read_text(encoding="utf-8").split())
    differing = sum(image.differing_px for image in result.images)
    assert f"IoU {result.lowest_iou} on all {len(result.images)} X-rays, {differing} pixels differ" in page
    assert f"ONNX Runtime {result.emulated.packages['onnxruntime']}, Python {result.emulated.python}." in page
    assert f"below an IoU of {LOWEST_IOU}" in page
