"""The worst masks of a report are those of the records, drawn where model and ground truth differ."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_records import make_accuracy, make_record, make_run

from seg_bench.data.samples import paired_samples
from seg_bench.metrics.summary import summarize
from seg_bench.records import Record, Run
from seg_bench.report.html_page import to_html
from seg_bench.report.worst import agreement_overlay, draw_worst, worst_images
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadInputError


def measured(repo: Path, images: Path, name: str = "unet_tiny") -> Run:
    """A run with the true Dice of every image, by a plain formula."""
    names, dice = [], []
    with connect(repo) as session:
        segmenter = SemanticSegmenter(session, name)
        for sample in paired_samples(images):
            mask, truth = segmenter.segment(sample.load_image()).mask > 0, sample.load_mask()
            names.append(sample.name)
            dice.append(2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum()))
    record = scored(make_record(name), names, dice)
    return make_run(record, replace(record, where="grpc", runtime="Triton"))


def scored(record: Record, names: list[str], dice: list[float]) -> Record:
    values = tuple(dice)
    accuracy = replace(
        make_accuracy(),
        dice=values,
        iou=values,
        hd95=values,
        images=tuple(names),
        dice_summary=summarize(values),
    )
    return replace(record, accuracy=accuracy)


def test_the_lowest_dice_of_each_model_are_drawn_once_and_told(tiny_repo: Path, xray_folder: Path) -> None:
    run = measured(tiny_repo, xray_folder)
    accuracy = run.records[0].accuracy
    assert accuracy and accuracy.images
    lowest = [accuracy.images[number] for number in np.argsort(accuracy.dice)[:2]]
    cases = draw_worst([run], xray_folder, tiny_repo, 2)
    assert [case.image for case in cases] == lowest
    assert [case.words for case in cases] == [
        f"Dice {min(accuracy.dice):.4f}",
        f"Dice {sorted(accuracy.dice)[1]:.4f}",
    ]
    page = to_html([run], worst=cases)
    assert page.count("<img ") == 2
    assert all(case.uri in page for case in cases)


def test_pictures_are_small_jpegs_inside_the_page(tiny_repo: Path, xray_folder: Path) -> None:
    (case,) = draw_worst([measured(tiny_repo, xray_folder)], xray_folder, tiny_repo, 1)
    encoded = np.frombuffer(base64.b64decode(case.uri.removeprefix("data:image/jpeg;base64,")), np.uint8)
    assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (case.height, case.width, 3)
    assert max(case.width, case.height) == 360
    assert encoded.size < 60_000


def test_colours_tell_who_is_alone() -> None:
    image = np.full((60, 60, 3), 100, np.uint8)
    mask, truth = np.zeros((2, 60, 60), bool)
    mask[10:50, 5:35], truth[10:50, 25:55] = True, True
    drawn = agreement_overlay(image, mask, truth).astype(int)
    only_mask, both, only_truth, neither = drawn[30, 12], drawn[30, 30], drawn[30, 48], drawn[2, 2]
    assert only_mask.argmax() == 0 and both.argmax() == 1 and only_truth.argmax() == 2
    assert neither.tolist() == [100, 100, 100]


def test_another_model_in_the_repository_is_said(tiny_repo: Path, xray_folder: Path) -> None:
    run = measured(tiny_repo, xray_folder)
    name = paired_samples(xray_folder)[0].name
    changed = make_run(scored(run.records[0], [name], [0.001]))
    (case,) = draw_worst([changed], xray_folder, tiny_repo, 3)
    assert "0.0010 in the record" in case.words and "in the repository now" in case.words


def test_records_without_names_and_folders_without_the_images_are_refused(
    tiny_repo: Path, xray_folder: Path
) -> None:
    assert worst_images(make_record(), 3) == []
    with pytest.raises(BadInputError, match="no record has a Dice with the names of its images"):
        draw_worst([make_run()], xray_folder, tiny_repo, 3)
    gone = make_run(scored(make_record("unet_tiny"), ["elsewhere"], [0.5]))
    with pytest.raises(BadInputError, match=r"lacks .* elsewhere"):
        draw_worst([gone], xray_folder, tiny_repo, 3)
