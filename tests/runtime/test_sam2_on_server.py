"""When features stay on a server: what a client asks before it trusts ensembles and cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from seg_runtime.errors import InferenceError, ServerUnavailableError
from seg_runtime.repository import model_not_found
from seg_runtime.sam2.models import IMAGE_PARTS, VIDEO_PARTS
from seg_runtime.sam2.on_server import server_ensembles
from seg_runtime.session import Session
from seg_runtime.spec import ModelSpec, TensorSpec

ENCODER = ModelSpec("m_image_encoder", 1, "sam2-image-encoder", "sam2", (), (), checkpoint_sha256="ab" * 32)


class AskedSession(Session):
    """A server with ensembles that says whether its cache answers, in this order.

    Attributes:
        asked: shapes of the inputs of each request.
    """

    where = "grpc"

    def __init__(self, *known: bool | None, error: Exception | None = None) -> None:
        inputs = (
            TensorSpec("image", "uint8", (1, 16, 16, 3)),
            TensorSpec("point_coords", "float32", (-1, -1, 2), ("prompts", "points")),
        )
        self.specs = {
            f"m_{part}": replace(ENCODER, name=f"m_{part}", task=f"sam2-{part}", inputs=inputs)
            for part in ("prompt", "track", "remember")
        }
        self.known = list(known)
        self.error = error
        self.asked: list[dict[str, tuple[int, ...]]] = []

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self.specs))

    def spec(self, model: str) -> ModelSpec:
        if model not in self.specs:
            raise model_not_found(model, self.specs, "in the test")
        return self.specs[model]

    def engine(self, model: str) -> str:
        return "nothing"

    def answers_from_cache(self, model: str) -> bool | None:
        assert model == ENCODER.name
        return self.known.pop(0)

    def close(self) -> None:
        pass

    def _infer(self, spec: ModelSpec, inputs: Mapping[str, Any], keep: frozenset[str]) -> dict[str, Any]:
        if self.error:
            raise self.error
        assert spec.name == "m_prompt"
        self.asked.append({name: value.shape for name, value in inputs.items()})
        return {}


def chosen(session: Session, parts: Collection[str] = VIDEO_PARTS) -> list[str]:
    return sorted(server_ensembles(session, "m", parts, ENCODER))


def test_a_server_whose_cache_has_answered_before_is_not_asked() -> None:
    session = AskedSession(True)
    assert chosen(session) == ["prompt", "remember", "track"]
    assert session.asked == []


@pytest.mark.parametrize(
    ("known", "trusted", "requests"),
    [
        ([None, None, True], True, 2),
        ([None, False], False, 1),
        ([None, None, None], False, 2),
        ([False], False, 0),
    ],
    ids=["fresh, with a cache", "fresh, without", "too small a cache", "used, without a cache"],
)
def test_a_fresh_server_is_asked_with_a_blank_image(
    known: list[bool | None], trusted: bool, requests: int
) -> None:
    session = AskedSession(*known)
    assert bool(chosen(session)) is trusted
    assert session.asked == [{"image": (1, 16, 16, 3), "point_coords": (1, 1, 2)}] * requests


def test_images_need_no_more_than_the_one_ensemble() -> None:
    session = AskedSession(True)
    del session.specs["m_track"]
    assert chosen(session, IMAGE_PARTS) == ["prompt"]
    assert chosen(session) == []


@pytest.mark.parametrize("where", ["in-process", "shared-memory"])
def test_handles_are_kept_where_features_do_not_travel_anyway(where: str) -> None:
    session = AskedSession()
    session.where = where
    assert chosen(session) == []


def test_ensembles_of_another_checkpoint_are_left_alone() -> None:
    session = AskedSession()
    session.specs["m_track"] = replace(session.specs["m_track"], checkpoint_sha256="cd" * 32)
    assert chosen(session) == []


def test_a_server_that_fails_an_ensemble_is_used_without_and_one_that_is_away_is_told() -> None:
    assert chosen(AskedSession(None, error=InferenceError("no"))) == []
    with pytest.raises(ServerUnavailableError):
        chosen(AskedSession(None, error=ServerUnavailableError("away")))
