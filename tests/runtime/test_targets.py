"""Which JetPack a board has, and which versions belong to it."""

from __future__ import annotations

import pytest

from seg_bench.doctor.targets import TARGETS, jetpack_of_l4t, read_l4t, target_of_jetpack

ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n"


def test_the_release_file_of_a_board_gives_its_release() -> None:
    assert read_l4t(ORIN) == "36.4.3"
    assert read_l4t("# R38 (release), REVISION: 2.0, GCID: 1\n") == "38.2.0"


@pytest.mark.parametrize(
    "text", ["", "Debian GNU/Linux 12\n", "# R36 (release)\n", "# R (release), REVISION: \n"]
)
def test_another_file_gives_no_release(text: str) -> None:
    assert read_l4t(text) is None


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("36.4.3", "6.2"),
        ("36.4.0", "6.1"),
        ("36.4", "6.1"),
        ("39.2.0", "7.2"),
        ("36.99.1", "6.x"),
        ("28.2", None),
    ],
)
def test_a_release_gives_its_jetpack_or_at_least_the_series(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of_l4t(l4t) == jetpack


def test_a_jetpack_gives_the_versions_that_belong_to_it() -> None:
    assert target_of_jetpack("6.2.1") is TARGETS["jetpack-6"]
    assert target_of_jetpack("7.x") is TARGETS["jetpack-7"]
    assert target_of_jetpack("5.1.2") is None


def test_images_for_jetpack_6_are_the_igpu_ones_and_no_others() -> None:
    assert {name for name, target in TARGETS.items() if target.image.endswith("-py3-igpu")} == {"jetpack-6"}
