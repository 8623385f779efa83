"""What `seg-bench reproduce` decides before it measures: engines, rows, times, what fits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bench_records import make_record, make_run
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Failed, InstructionSets, OnnxRuntime, TensorRTFound
from seg_bench.doctor.gather import put_together
from seg_bench.records import Agreement, Record, Run
from seg_bench.report.grouping import network_of
from seg_bench.reproduce.catalogue import GROUPS, ROWS, choose_rows
from seg_bench.reproduce.device import Device, examine_device, matrix_gflops
from seg_bench.reproduce.durations import seconds_of
from seg_bench.reproduce.images import find_images
from seg_bench.reproduce.options import ReproduceOptions
from seg_bench.reproduce.plan import (
    _OPEN_S,
    _WARM_UP,
    LEAST_CALLS,
    MIN_S,
    fitting_rows,
    plan_rows,
    share_s,
)
from seg_bench.reproduce.screen import plan_text, results_text
from seg_bench.reproduce.table import table_lines, to_markdown_table
from seg_bench.run.suites import SUITES
from seg_runtime.errors import BadInputError, EdgesegError
from seg_runtime.sam2.models import VIDEO_PARTS

MACHINES = Path(__file__).parents[1] / "data" / "doctor"
CPU = Device(("onnxruntime", "openvino"), True, False, 200.0, ())
LUNG = ROWS["unet_lung"]
BOTH = ("unet_lung", "unet_lung_fp16", "unet_lung_int8")


def recorded(machine: str) -> Facts:
    return put_together(MACHINES / machine, json.loads((MACHINES / machine / "answers.json").read_text()))


CUDA = OnnxRuntime("1.31.1", ("CUDAExecutionProvider", "CPUExecutionProvider"))
BROKEN = replace(CUDA, cuda_fault="libcudnn.so.9: cannot open shared object file")
TENSORRT = TensorRTFound("10.3.0", True, True)


@pytest.mark.parametrize(
    ("machine", "changes", "engines", "note"),
    [
        ("bare-cpu", {}, (), ""),
        ("server-gpu", {}, ("onnxruntime", "openvino"), "pip install 'edgeseg[gpu]'"),
        ("server-gpu", {"onnxruntime": CUDA}, ("onnxruntime-cuda",), ""),
        (
            "server-gpu",
            {"onnxruntime": BROKEN},
            ("onnxruntime", "openvino"),
            "CUDA does not load: libcudnn.so.9",
        ),
        ("server-gpu", {"openvino": Failed("it crashed")}, ("onnxruntime",), ""),
        ("orin-jetpack-6.2", {}, ("onnxruntime",), "pip install 'edgeseg[gpu]'"),
        ("orin-jetpack-6.2", {"tensorrt": TENSORRT}, ("tensorrt",), "pip install 'edgeseg[gpu]'"),
        (
            "orin-jetpack-6.2",
            {"tensorrt": TENSORRT, "onnxruntime": CUDA},
            ("onnxruntime-cuda", "tensorrt"),
            "",
        ),
        ("thor-jetpack-7.2", {}, (), "pip install 'edgeseg[gpu]'"),
    ],
)
def test_a_machine_computes_with_the_engines_that_can_run_there(
    machine: str, changes: dict[str, object], engines: tuple[str, ...], note: str
) -> None:
    device = examine_device(replace(recorded(machine), **changes))
    assert device.engines == engines
    assert note in " ".join(device.notes)


def test_pytorch_is_compiled_where_there_are_products_in_bfloat16() -> None:
    facts = recorded("bare-cpu")
    with_them = replace(facts, instruction_sets=InstructionSets(("avx2", "amx"), ()))
    without = replace(facts, instruction_sets=InstructionSets(("avx2",), ("amx",)))
    assert examine_device(with_them).compiles
    device = examine_device(without)
    assert not device.compiles
    assert "this processor has no bfloat16 products" in " ".join(device.notes)


def test_the_rate_is_that_of_the_fastest_product() -> None:
    ticks = iter([0.0, 0.0, 0.5, 0.5, 0.5, 0.6, 2.0])
    assert matrix_gflops(1.0, lambda: next(ticks)) == pytest.approx(2 * 768**3 / 0.1 / 1e9)
    assert matrix_gflops(0.05) > 0.1


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_its_rows(group: str) -> None:
    assert choose_rows([group]) == tuple(row for row in ROWS.values() if row.group == group)


def test_rows_keep_the_order_of_the_table_and_come_once() -> None:
    assert [row.key for row in choose_rows(["sam*", "unet_lung", "sam_tiny"])] == [
        "unet_lung",
        "sam_tiny",
        "sam_vit_h",
        "sam_vit_b",
        "sam_vit_l",
        "sam2.1_tiny",
        "sam2.1_small",
        "sam2.1_base_plus",
        "sam2.1_large",
    ]
    assert choose_rows([]) == tuple(ROWS.values())
    with pytest.raises(BadInputError, match="--rows 'unet31' is no row: choose from shipped, article, more"):
        choose_rows(["unet31"])


@pytest.mark.slow
def test_operations_are_those_that_pytorch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from seg_export.checkpoints.checkpoint import build_model, load_checkpoint, untrained_model
    from seg_export.checkpoints.pretrained import pretrained_path

    for key in ("unet_lung", "unetpp_lung", "transunet_lung", "unet_31m", "unetpp", "transunet"):
        row = ROWS[key]
        if row.random:
            module, side = untrained_model(row.family, row.arguments), 512
            side = int(getattr(module, "image_size", side))
        else:
            checkpoint = load_checkpoint(pretrained_path(row.weights))
            module, side = build_model(checkpoint), checkpoint.preprocessing.input_size_hw[0]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module.to("meta").eval()(torch.zeros(1, 1, side, side, device="meta"))
        assert counter.get_total_flops() / 1e9 == pytest.approx(row.gflop, rel=0.05), key


@pytest.mark.slow
def test_operations_of_a_sam2_are_the_mean_of_an_image_and_two_frames() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from seg_export.families.sam2.network import VARIANTS, build_sam2

    row, counts = ROWS["sam2.1_tiny"], []
    model: Any = build_sam2(**VARIANTS["sam2.1_tiny"]).to("meta").requires_grad_(False)
    with torch.device("meta"):
        memory = {
            "maskmem_features": torch.zeros(1, 64, 64, 64),
            "maskmem_pos_enc": [torch.zeros(1, 64, 64, 64)],
            "obj_ptr": torch.zeros(1, 256),
        }
        box = {"point_coords": torch.zeros(1, 2, 2), "point_labels": torch.ones(1, 2, dtype=torch.int32)}
        for memories in (0, *row.memories):
            bank = {
                "cond_frame_outputs": {0: memory},
                "non_cond_frame_outputs": dict.fromkeys(range(1, memories), memory),
            }
            with FlopCounterMode(display=False) as counter:
                backbone = model.forward_image(torch.zeros(1, 3, 1024, 1024))
                _, levels, positions, sizes = model._prepare_backbone_features(backbone)
                if memories:
                    model.track_step(memories, False, levels, positions, sizes, None, None, bank, 32)
                else:
                    *high, low = (
                        level.permute(1, 2, 0).reshape(1, -1, *size)
                        for level, size in zip(levels, sizes, strict=True)
                    )
                    model._forward_sam_heads(low, box, None, high)
            counts.append(counter.get_total_flops() / 1e9)
    assert sum(counts) / len(counts) == pytest.approx(row.gflop, rel=0.05)


def test_models_that_are_there_are_measured_and_others_exported_first() -> None:
    (built,) = plan_rows([LUNG], CPU, BOTH, (), export=True)
    (half,) = plan_rows([LUNG], CPU, ["unet_lung"], (), export=True)
    assert (built.state, built.missing, built.precisions) == ("to do", (), ("fp32", "fp16", "int8"))
    assert half.missing == ("fp16", "int8")
    assert half.estimate_s == built.estimate_s + 2 * LUNG.export_s
    # Eager PyTorch, fp32 and int8 in both engines, fp16 in OpenVINO.
    assert built.candidates == 6


def test_triton_serves_what_is_deployed_there() -> None:
    served = plan_rows([LUNG], replace(CPU, server=True), BOTH, (), export=True)[0]
    assert served.served and served.candidates == 6 + 2  # No fp16: ONNX Runtime on a processor.
    gpu = replace(CPU, engines=("onnxruntime-cuda", "tensorrt"), server=True)
    on_gpu = plan_rows([LUNG], gpu, BOTH, (), export=True)[0]
    assert on_gpu.candidates == 1 + 3 * 3
    assert on_gpu.builds == 3
    bundled = plan_rows([LUNG], replace(gpu, pytorch=False), BOTH, (), export=False)[0]
    assert bundled.builds == 3, "a bundle has graphs"
    given = plan_rows([LUNG], gpu, BOTH, (), export=False, build=False)[0]
    assert given.builds == 0, "a given repository stays as it is"


def test_int8_is_for_the_families_that_have_it() -> None:
    assert plan_rows([ROWS["sam_tiny"]], CPU, [], (), export=True)[0].precisions == ("fp32", "fp16")


def test_a_budget_without_room_for_everything_says_what_is_cut() -> None:
    device = replace(CPU, server=True)
    rows = choose_rows(["shipped"])
    whole, cut = fitting_rows(rows, device, [], (), 1e6, export=True)
    assert cut == "" and whole == plan_rows(rows, device, [], (), export=True)
    least = sum(each.least_s for each in whole)
    part, cut = fitting_rows(rows, device, [], (), least - 1, export=True)
    assert cut == "the budget has no room for int8 and Triton: give a larger one, or fewer --rows"
    assert {each.precisions for each in part} == {("fp32", "fp16")}
    assert not any(each.served for each in part)
    less = sum(each.least_s for each in part)
    assert less < least
    small, cut = fitting_rows(rows, device, [], (), less - 1, export=True)
    assert cut == "the budget has no room for fp16 and int8 and Triton: give a larger one, or fewer --rows"
    assert {each.precisions for each in small} == {("fp32",)}
    assert sum(each.least_s for each in small) < less
    sam, cut = fitting_rows([ROWS["sam_tiny"]], CPU, [], (), 1.0, export=True)
    assert sam[0].precisions == ("fp32",)
    assert cut == "the budget has no room for fp16: give a larger one, or fewer --rows"


def test_a_sam_is_there_when_both_of_its_models_are() -> None:
    sam = ROWS["sam_tiny"]
    halves = ["sam_tiny_encoder", "sam_tiny_decoder"]
    assert plan_rows([sam], CPU, halves, (), export=True)[0].missing == ("fp16",)
    assert plan_rows([sam], CPU, halves[:1], (), export=True)[0].missing == ("fp32", "fp16")


def test_a_sam2_is_there_when_all_that_tracking_needs_is() -> None:
    row = ROWS["sam2.1_tiny"]
    parts = [f"sam2.1_tiny_{part}" for part in VIDEO_PARTS]
    assert plan_rows([row], CPU, parts, (), export=True)[0].missing == ("fp16",)
    assert plan_rows([row], CPU, parts[:2], (), export=True)[0].missing == ("fp32", "fp16")


def test_an_image_and_two_frames_of_a_sam2_take_turns_and_the_frames_before_them_take_time() -> None:
    (planned,) = plan_rows([ROWS["sam2.1_tiny"]], CPU, (), (), export=True)
    # Eager PyTorch, fp32 in both engines, fp16 in OpenVINO.
    assert (planned.ways, planned.candidates) == (4, 12)
    alike = replace(planned, row=replace(planned.row, memories=()))
    assert alike.candidates == 4
    opened_s = (planned.candidates - alike.candidates) * (_OPEN_S + (_WARM_UP + 1) * planned.call_s)
    frames_s = 4 * (1 + 7) * 4 * planned.call_s
    assert planned.prepare_s - alike.prepare_s == pytest.approx(opened_s + frames_s)
    assert planned.row.measured("fp16") == (
        "sam2.1_tiny_fp16",
        "sam2.1_tiny_fp16_track1",
        "sam2.1_tiny_fp16_track7",
    )


def test_nothing_is_measured_twice() -> None:
    assert plan_rows([LUNG], CPU, BOTH, ["unet_lung"], export=True)[0].state == "measured"


def test_what_cannot_run_says_why() -> None:
    no_engine = plan_rows([LUNG], replace(CPU, engines=()), BOTH, (), export=True)[0]
    assert no_engine.state == "cannot run here"
    assert "pip install 'edgeseg[cpu]'" in no_engine.note
    without = replace(CPU, pytorch=False)
    no_export = plan_rows([LUNG], without, [], (), export=True)[0]
    assert "PyTorch is not installed, which exports it: bring models with --bundle" in no_export.note
    not_given = plan_rows([LUNG], CPU, ["other"], (), export=False)[0]
    assert not_given.note == "the given models do not have it"


def test_given_models_are_measured_in_the_precisions_that_they_have() -> None:
    (planned,) = plan_rows([LUNG], CPU, ["unet_lung"], (), export=False)
    assert (planned.state, planned.precisions, planned.missing) == ("to do", ("fp32",), ())


def test_a_budget_is_shared_by_what_rows_need() -> None:
    plan = plan_rows(choose_rows(["unet_lung", "unet_31m"]), CPU, [], (), export=True)
    whole = sum(each.estimate_s for each in plan)
    assert share_s(plan, 10 * whole) == plan[0].estimate_s
    assert share_s(plan, 1) == plan[0].least_s
    spare = 100.0
    shared = share_s(plan, sum(each.least_s for each in plan) + spare)
    wanted = [each.estimate_s - each.least_s for each in plan]
    assert shared == pytest.approx(plan[0].least_s + spare * wanted[0] / sum(wanted))
    assert plan[0].estimate_s >= plan[0].candidates * MIN_S
    assert plan[0].least_s < plan[0].estimate_s
    assert plan[0].least_s > plan[0].candidates * LEAST_CALLS * plan[0].call_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), (" 1.5h ", 5400), (".5m", 30)]
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-1m", "ten", "10 d", "1m30", "nan", "inf"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match=r"--budget is .*; give a time of more than 0"):
        seconds_of("--budget", text)


def test_drawn_images_are_the_same_everywhere_and_fill_what_nobody_gave(
    tmp_path: Path, xray_folder: Path
) -> None:
    first, again = (find_images((), tmp_path / name) for name in ("a", "b"))
    for kind, truth in (("masks", "masks"), ("objects", "labels")):
        assert first[kind].drawn
        for name in ("images", truth):
            for path in sorted((first[kind].path / name).iterdir()):
                image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                np.testing.assert_array_equal(
                    image, cv2.imread(str(again[kind].path / name / path.name), cv2.IMREAD_UNCHANGED)
                )
                assert len(np.unique(image)) > 1
    given = find_images((xray_folder,), tmp_path / "c")
    assert (given["masks"].path, given["masks"].drawn, given["objects"].drawn) == (xray_folder, False, True)


def test_of_the_data_that_networks_were_trained_on_only_the_test_part_is_measured(
    tmp_path: Path, xray_folder: Path, nuclei_folder: Path
) -> None:
    found = find_images((xray_folder, nuclei_folder), tmp_path / "out")
    assert (found["masks"].suite, found["objects"].suite) == (SUITES["montgomery"], SUITES["nuclei"])
    assert SUITES["montgomery"].part == SUITES["nuclei"].part == "test"
    for name in ("images", "masks"):
        (tmp_path / "other" / name).mkdir(parents=True)
        shutil.copy(min((xray_folder / name).iterdir()), tmp_path / "other" / name / "another.png")
    assert find_images((tmp_path / "other",), tmp_path / "out")["masks"].suite is None


def test_the_plan_fits_into_80_columns() -> None:
    plan = plan_rows(ROWS.values(), CPU, BOTH, ["unetpp"], export=True)
    stuck = plan_rows(
        ROWS.values(), replace(CPU, pytorch=False, notes=("x" * 60 + " why not",)), [], (), export=True
    )
    for text in (plan_text(plan, CPU, 600), plan_text(stuck, CPU, 600)):
        assert max(map(len, text.splitlines())) <= 80
    text = plan_text(plan, CPU, 600)
    assert "U-Net, lungs              measure fp32 fp16 int8" in text
    assert "U-Net++                   measured before" in text
    assert "rows are timed shorter, and what does not fit is left out" in " ".join(text.split())


def made_run() -> Run:
    """U-Net 31M: PyTorch, an engine that is twice as fast, and one whose masks differ."""
    agreement = Agreement("ONNX Runtime 1.32.0, CPU", 0.995, ("a", "b"), (0.9991, 0.9987))
    base = make_record("unet_31m", runtime="PyTorch eager", weights="random", median_ms=80.0)
    fast = replace(make_record("unet_31m", weights="random"), agreement=agreement, early="12 of 64 calls")
    wrong = replace(
        make_record("unet_31m_fp16", runtime="OpenVINO", weights="random"),
        agreement=replace(agreement, mask_iou=(0.9, 0.99)),
        latency=None,
        failure="not timed: the mask of 'a' has an IoU of 0.9000 with that of the fp32 graph",
    )
    return make_run(base, fast, wrong)


def test_the_tables_tell_random_weights_speed_and_failed_engines() -> None:
    run = made_run()
    base, fast, wrong = table_lines([run])
    assert {line.network for line in (base, fast, wrong)} == {"U-Net 31M (random weights)"}
    assert base.times == "-"
    ratio = base.record.latency.percentile(50) / fast.record.latency.percentile(50)
    assert fast.times == f"{ratio:.2f}"
    assert (fast.iou, fast.note) == ("0.9987", "stopped early: 12 of 64 calls")
    assert (wrong.iou, wrong.times, wrong.percentile(50)) == ("0.9000", "-", "-")
    assert wrong.note.startswith("not timed: the mask of 'a'")
    text = results_text([run])
    assert max(map(len, text.splitlines())) <= 80
    page = to_markdown_table([run], ["SAM ViT-H, a box: needs about 900 s"])
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert "- the article, U-Net (original): Dice 0.967, 12 ms, on a machine that it does not name" in page
    assert "- not measured: SAM ViT-H, a box: needs about 900 s" in page


def test_the_frames_of_a_sam2_are_lines_with_a_baseline_each() -> None:
    def record(name: str, runtime: str, median_ms: float) -> Record:
        made = make_record(name, runtime=runtime, weights="random", median_ms=median_ms)
        precision = "fp16" if "fp16" in name else "fp32"
        one_sam2 = {"family": "sam2", "precision": precision, "checkpoint_sha256": "ab" * 32}
        return replace(made, model=replace(made.model, **one_sam2))

    rows = [
        record("sam2.1_tiny", "PyTorch eager", 90),
        record("sam2.1_tiny_track7", "PyTorch eager", 400),
        record("sam2.1_tiny_track1", "ONNX Runtime", 50),
        record("sam2.1_tiny", "ONNX Runtime", 30),
        record("sam2.1_tiny_fp16_track7", "OpenVINO", 100),
    ]
    lines = table_lines([make_run(*rows)])
    assert [(line.network.removesuffix(" (random weights)"), line.times) for line in lines] == [
        ("SAM 2.1 tiny, a box", "-"),
        ("SAM 2.1 tiny, a box", f"{p50(rows[0]) / p50(rows[3]):.2f}"),
        ("SAM 2.1 tiny, a frame with 1 memory", "-"),
        ("SAM 2.1 tiny, a frame with 7 memories", "-"),
        ("SAM 2.1 tiny, a frame with 7 memories", f"{p50(rows[1]) / p50(rows[4]):.2f}"),
    ]
    assert network_of(rows[4]) == network_of(replace(rows[1], runtime="OpenVINO")) == "sam2.1_tiny_track7"
    text = results_text([make_run(*rows)])
    assert max(map(len, text.splitlines())) <= 80


def p50(record: Record) -> float:
    assert record.latency
    return record.latency.percentile(50)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "soon"], "--budget is 'soon'"),
        (["--rows", "unet_32m"], "--rows 'unet_32m' is no row"),
        (["--engines", "auto,openvino"], "leave out the others"),
        (["--engines", "onnx"], "there is no engine 'onnx'"),
        (["--repo", "nowhere"], "model repository 'nowhere' is not a folder"),
        (["--bundle", "nowhere.tar"], "cannot unpack 'nowhere.tar'"),
        (["--bundle", "a.tar", "--repo", "b"], "--bundle brings models and images"),
    ],
)
def test_bad_options_are_one_error(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["reproduce", "--out", "out", *arguments])
    assert isinstance(result.exception, EdgesegError)
    assert words in str(result.exception)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(BadInputError, match="--budget is 0 s"):
        ReproduceOptions(Path("out"), budget_s=0)
