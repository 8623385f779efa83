"""Which models a run measures by which name, when there are SAMs among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sam_models import sam_specs

from seg_bench.run.subjects import matching_subjects, named_subject
from seg_runtime.errors import BadInputError, ModelNotFoundError
from seg_runtime.repository import model_not_found
from seg_runtime.sam2.models import IMAGE_PARTS, VIDEO_PARTS
from seg_runtime.spec import ModelSpec

UNET = ModelSpec("unet", 1, "semantic", "unet", (), (), parameter_count=7)
ENSEMBLE = ModelSpec("sam_tiny", 1, "sam", "sam", (), ())


class Contracts:
    """Contracts without a repository."""

    def __init__(self, *specs: ModelSpec) -> None:
        self._specs = {spec.name: spec for spec in specs}

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self._specs))

    def spec(self, model: str) -> ModelSpec:
        if model not in self._specs:
            raise model_not_found(model, self._specs, "in the test")
        return self._specs[model]


def halves(**changes: object) -> tuple[ModelSpec, ModelSpec]:
    encoder, decoder = sam_specs().values()
    return replace(encoder, parameter_count=40), replace(decoder, parameter_count=2, **changes)


@pytest.mark.parametrize("others", [(), (ENSEMBLE,), (UNET,)])
def test_a_sam_is_measured_as_its_two_models_with_or_without_an_ensemble(
    others: tuple[ModelSpec, ...],
) -> None:
    subject = named_subject(Contracts(*halves(), *others), "sam_tiny")
    assert subject.kind == "sam"
    assert [spec.name for spec in subject.specs] == ["sam_tiny_encoder", "sam_tiny_decoder"]
    assert subject.parameter_count == 42


def test_every_semantic_model_and_whole_sam_is_found() -> None:
    stray = replace(halves()[0], name="other_encoder")
    contracts = Contracts(UNET, ENSEMBLE, stray, *halves())
    subjects = matching_subjects(contracts, contracts.models())
    assert [(subject.name, subject.kind) for subject in subjects] == [
        ("sam_tiny", "sam"),
        ("unet", "semantic"),
    ]


def test_what_is_no_whole_model_is_refused_by_name() -> None:
    encoder, decoder = halves()
    with pytest.raises(BadInputError, match="one half of a SAM: measure it as 'sam_tiny'"):
        named_subject(Contracts(encoder, decoder), "sam_tiny_decoder")
    with pytest.raises(ModelNotFoundError, match="the decoder is missing"):
        named_subject(Contracts(encoder), "sam_tiny")
    with pytest.raises(BadInputError, match="is for 'sam'"):
        named_subject(Contracts(ENSEMBLE), "sam_tiny")
    assert matching_subjects(Contracts(encoder), ["sam_tiny_encoder"]) == ()
    with pytest.raises(ModelNotFoundError, match="did you mean 'unet'"):
        named_subject(Contracts(UNET), "unett")


def sam2(*parts: str) -> tuple[ModelSpec, ...]:
    """Contracts of these parts of `sam2`; the first has no parameter, and each next one more."""
    return tuple(
        ModelSpec(f"sam2_{part}", 1, f"sam2-{part.replace('_', '-')}", "sam2", (), (), parameter_count=count)
        for count, part in enumerate(parts)
    )


def test_a_sam2_is_measured_with_an_image_and_with_tracked_frames() -> None:
    contracts = Contracts(*sam2(*VIDEO_PARTS), UNET)
    subjects = matching_subjects(contracts, contracts.models())
    assert [subject.name for subject in subjects] == ["sam2", "sam2_track1", "sam2_track7", "unet"]
    image, first, full, unet = subjects
    assert {subject.kind for subject in (image, first, full)} == {"sam2"}
    assert [subject.memories for subject in subjects] == [0, 1, 7, 0]
    assert [spec.name for spec in image.specs] == ["sam2_image_encoder", "sam2_mask_decoder"]
    assert full.called == tuple(f"sam2_{part}" for part in VIDEO_PARTS if part != "mask_prompt")
    assert (image.parameter_count, full.parameter_count) == (1, 10)
    assert image.prompted and full.prompted and not unet.prompted
    assert len({subject.identity for subject in (image, first, full)}) == 3


def test_a_sam2_that_cannot_track_is_measured_with_an_image() -> None:
    contracts = Contracts(*sam2(*IMAGE_PARTS))
    assert [subject.name for subject in matching_subjects(contracts, contracts.models())] == ["sam2"]
    with pytest.raises(ModelNotFoundError, match="SAM2 'sam2' needs the model 'sam2_mask_prompt'"):
        named_subject(contracts, "sam2_track7")


def test_a_part_of_a_sam2_is_refused_with_the_name_of_the_whole() -> None:
    contracts = Contracts(*sam2(*VIDEO_PARTS, "track"))
    for part in (*VIDEO_PARTS, "track"):
        with pytest.raises(BadInputError, match="is a part of a SAM2: measure it as 'sam2'"):
            named_subject(contracts, f"sam2_{part}")


def test_halves_of_different_checkpoints_are_refused() -> None:
    contracts = Contracts(*halves(checkpoint_sha256="cd" * 32))
    with pytest.raises(BadInputError, match="published from one checkpoint"):
        named_subject(contracts, "sam_tiny")
