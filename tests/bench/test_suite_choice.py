"""Which models and images a run takes: suites, patterns, precisions, batches, and large models alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from scaling_model import publish_scaling_model, scaling_graph, scaling_spec

from seg_bench.run import plan as plan_module
from seg_bench.run.choice import choose_local
from seg_bench.run.options import (
    MOST_WARM_UP,
    LoadLevel,
    RunOptions,
    counts_of,
    rates_of,
    warm_up_of,
)
from seg_bench.run.plan import make_plan
from seg_bench.run.suites import SUITES, find_suite
from seg_runtime.errors import BadInputError, ModelNotFoundError, RepositoryError
from seg_runtime.model_config import to_text
from seg_runtime.repository import Repository


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`unet_a` and `unet_b` (int8), `other`, and `later` that is not built."""
    folder = tmp_path_factory.mktemp("choice") / "repo"
    folder.mkdir()
    for name in ("unet_a", "unet_b", "other", "later"):
        publish_scaling_model(folder, name, graph=scaling_graph(0.004))
    int8 = replace(scaling_spec("unet_b"), precision="int8")
    (folder / "unet_b" / "config.pbtxt").write_text(to_text(int8))
    shutil.rmtree(folder / "later" / "1")
    return folder


@pytest.fixture(scope="module")
def options(repo: Path, xray_folder: Path) -> RunOptions:
    return RunOptions(repo=repo, data=xray_folder)


def chosen(options: RunOptions, **changes: object) -> list[str]:
    changed = replace(options, **changes)
    return [subject.name for subject in choose_local(changed, Repository(changed.repo))]


def test_patterns_and_precisions_choose_among_the_models_that_are_built(options: RunOptions) -> None:
    assert chosen(options) == ["other", "unet_a", "unet_b"]
    assert chosen(options, models=("unet*",)) == ["unet_a", "unet_b"]
    assert chosen(options, models=("other", "unet_?", "unet_a")) == ["other", "unet_a", "unet_b"]
    assert chosen(options, models=("unet*",), precisions=("int8", "fp16")) == ["unet_b"]
    assert chosen(options, suite=SUITES["montgomery"]) == ["other", "unet_a", "unet_b"]


def test_a_choice_that_matches_nothing_lists_what_there_is(options: RunOptions) -> None:
    everything = r"other \(semantic, fp32\), unet_a \(semantic, fp32\), unet_b \(semantic, int8\)"
    with pytest.raises(BadInputError, match=rf"--models 'sam\*' matches no model; there are: {everything}"):
        chosen(options, models=("sam*",))
    with pytest.raises(ModelNotFoundError, match=rf"did you mean 'unet_a'.*measured there: {everything}"):
        chosen(options, models=("unet_aa",))
    with pytest.raises(BadInputError, match=r"--precisions fp16 matches no model; there are: other \(sem"):
        chosen(options, precisions=("fp16",))
    with pytest.raises(BadInputError, match=r"no model fits the suite; there are: other \(sem"):
        chosen(options, suite=SUITES["nuclei"])
    with pytest.raises(RepositoryError, match="'later' is not built"):
        chosen(options, models=("later",))


def test_a_broken_contract_stops_only_a_run_that_asks_for_its_model(
    options: RunOptions, tmp_path: Path
) -> None:
    copied = shutil.copytree(options.repo, tmp_path / "repo")
    for name in ("broken", "sam_encoder", "sam_decoder"):
        (copied / name / "1").mkdir(parents=True)
        (copied / name / "config.pbtxt").write_text("platform: ")
    assert chosen(options, repo=copied, models=("unet_a",)) == ["unet_a"]
    assert chosen(options, repo=copied, models=("unet*",)) == ["unet_a", "unet_b"]
    with pytest.raises(ModelNotFoundError, match=r"measured there: other \(semantic, fp32\), unet_a"):
        chosen(options, repo=copied, models=("unet_aa",))
    with pytest.raises(BadInputError, match=r"matches no model; there are: other \(semantic, fp32\), unet_a"):
        chosen(options, repo=copied, models=("x*",))
    for asked in ("broken", "b*", "sam", "*"):
        with pytest.raises(RepositoryError, match=r"broken/config\.pbtxt|sam_encoder/config\.pbtxt"):
            chosen(options, repo=copied, models=(asked,))
    gated = replace(options, repo=copied, models=("unet_a",), gate=True)
    assert make_plan(gated, tmp_path).fp32_graphs.keys() == {"unet_a"}


def test_a_suite_takes_the_images_of_its_part_that_the_folder_has(
    options: RunOptions, tmp_path: Path
) -> None:
    suite = SUITES["montgomery"]
    plan = make_plan(replace(options, suite=suite, part=suite.part), tmp_path)
    assert plan.split == "montgomery, test (8 of 22)"
    assert len(plan.samples) == 8
    with pytest.raises(BadInputError, match="no image of the part 'montgomery, train'"):
        make_plan(replace(options, suite=suite, part="train"), tmp_path)
    with pytest.raises(BadInputError, match="lacks 14 of the split's 22 samples"):
        make_plan(replace(options, part="test"), tmp_path)


def test_a_suite_without_its_images_says_how_to_get_them(tmp_path: Path, xray_folder: Path) -> None:
    assert find_suite("montgomery", xray_folder) == (SUITES["montgomery"], xray_folder)
    with pytest.raises(BadInputError, match="seg-bench data montgomery --out data/montgomery --prepare"):
        find_suite("montgomery", tmp_path / "none")
    with pytest.raises(BadInputError, match="choose from montgomery, shenzhen, nuclei"):
        find_suite("cityscapes", None)


def test_large_models_are_measured_alone_after_the_others(
    options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_plan(options, tmp_path).groups(options) == (("other", "unet_a", "unet_b"),)
    copied = shutil.copytree(options.repo, tmp_path / "repo")
    monkeypatch.setattr(plan_module, "LARGE_BYTES", 1 << 20)
    for name in ("other", "unet_b"):
        # Weights lie beside the graph when they are large.
        (copied / name / "1" / "model.onnx.data").write_bytes(bytes(2 << 20))
    plan = make_plan(replace(options, repo=copied), tmp_path)
    assert plan.groups(options) == (("unet_a",), ("other",), ("unet_b",))
    (note,) = plan.notes(options)
    assert note == "to save memory, one group after the other took its turns: unet_a | other | unet_b"
    alone = replace(options, repo=copied, models=("other",))
    assert list(make_plan(alone, tmp_path).notes(alone)) == []


def test_no_more_rows_are_open_at_once_than_memory_is_meant_for(
    options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "MOST_ROWS", 4)
    two_rows = replace(options, batches=(1, 2))
    assert make_plan(two_rows, tmp_path).groups(two_rows) == (("other", "unet_a"), ("unet_b",))
    six_rows = replace(two_rows, engines=("auto", "onnxruntime", "openvino"))
    assert make_plan(six_rows, tmp_path).groups(six_rows) == (("other",), ("unet_a",), ("unet_b",))


def test_every_batch_that_a_model_takes_is_a_row(options: RunOptions, tmp_path: Path) -> None:
    batches = replace(options, models=("unet_a", "other"), batches=(1, 4, 16), where=("in-process", "grpc"))
    plan = make_plan(batches, tmp_path)
    rows = plan.candidates(batches, None, ["other"])
    assert [(row.where, row.batch) for row in rows] == [
        ("in-process", 1),
        ("in-process", 4),
        ("grpc", 1),
        ("grpc", 4),
    ]
    assert len({row.name for row in rows}) == 4
    assert [row.parts for row in rows] == [(), (), ("other",), ("other",)]
    assert list(plan.notes(batches))[-1] == "'other' takes batches of 8 at most, not 16"


def test_values_between_commas_are_read_or_named(options: RunOptions) -> None:
    assert counts_of("--batch", "1, 2,8,2") == (1, 2, 8)
    assert rates_of("0.5,20") == (0.5, 20.0)
    assert warm_up_of("7") == (7, False)
    assert warm_up_of("until-stable") == (MOST_WARM_UP, True)
    for text in ("", "1,two", "1.5"):
        with pytest.raises(BadInputError, match=r"--batch is '.*'; give whole numbers"):
            counts_of("--batch", text)
    with pytest.raises(BadInputError, match="must be a number or until-stable"):
        warm_up_of("stable")
    levels = replace(options, concurrency=(1, 4), rates=(2.5,), duration_s=3).load_levels
    assert levels == (LoadLevel(1, None, 3), LoadLevel(4, None, 3), LoadLevel(None, 2.5, 3))
    assert replace(options, rates=(1.0,)).load_levels[0].duration_s == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": (1, 0)}, "--batch is 0; it must be 1 or more"),
        ({"concurrency": (0,)}, "--concurrency is 0; it must be 1 or more"),
        ({"rates": (-1.0,)}, "--rate is -1; it must be more than 0"),
        ({"rates": (float("nan"),)}, "--rate is nan"),
        ({"concurrency": (1,), "duration_s": 0.0}, "--duration is 0; it must be more than 0"),
        ({"duration_s": 5.0}, "add --concurrency or --rate"),
    ],
)
def test_impossible_loads_are_named(options: RunOptions, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        replace(options, **changes)
