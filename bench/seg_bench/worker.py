"""One candidate in a process of its own: `python -m seg_bench.worker`, steered by JSON lines.

A process each, so that a candidate's peak memory is its own, its allocator can be tuned by
environment variables, and two runtimes' thread pools never meet. The first line on stdin is a
`Candidate`; the answer holds the facts of its model. Then one request per line and one answer per
line on stdout, until stdin closes:

    {"do": "time", "samples": [0, 1]}    -> milliseconds per stage of one call with these images
    {"do": "score", "sample": 0}         -> dice, iou and hd95 of one image

An answer {"error": "..."} ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from seg_bench.candidate import Candidate, open_session
from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.splits import select
from seg_bench.json_fields import from_json
from seg_runtime.errors import BadInputError, EdgesegError
from seg_runtime.semantic import SemanticSegmenter
from seg_runtime.session import Session

__all__ = ["Measurement", "main"]


class Measurement:
    """Runs a candidate the way users do: image files in, `SemanticSegmenter`, masks out.

    Args:
        session: runs the model.
        candidate: the model's name and the images.

    Raises:
        ModelNotFoundError, BadInputError: as `SemanticSegmenter`, and for missing samples.
    """

    def __init__(self, session: Session, candidate: Candidate) -> None:
        self._segmenter = SemanticSegmenter(session, candidate.model)
        self._where = session.where
        self._samples = select(load_montgomery(Path(candidate.data)), candidate.samples)

    def facts(self) -> dict[str, Any]:
        """What the session says about itself: where tensors really travel."""
        return {"where": self._where}

    def time(self, samples: Sequence[int]) -> dict[str, float]:
        """Segment these images in one call; milliseconds per stage and in total.

        Reading the files is not part of it, copying the result into the image's frame is.
        """
        images = [self._image(number) for number in samples]
        start = time.perf_counter()
        results = list(self._segmenter.stream(images, batch_size=len(images)))
        total = 1000 * (time.perf_counter() - start)
        stages = ("preprocess", "infer", "postprocess")
        spent = {stage: sum(result.timings_ms[stage] for result in results) for stage in stages}
        return {**spent, "total": total}

    def score(self, number: int) -> dict[str, float]:
        """Dice, IoU and HD95 in pixels of one image against its mask, foreground against background."""
        from seg_bench.metrics import dice_score, hausdorff_95, iou_score

        predicted = self._segmenter.segment(self._image(number)).mask > 0
        sample = self._samples[number]
        target = sample.load_mask()
        if predicted.shape != target.shape:
            raise BadInputError(
                f"the mask of '{sample.name}' is {target.shape[1]}x{target.shape[0]} and its image "
                f"{predicted.shape[1]}x{predicted.shape[0]}: both must have one size"
            )
        return {
            "dice": dice_score(predicted, target),
            "iou": iou_score(predicted, target),
            "hd95": hausdorff_95(predicted, target),
        }

    def _image(self, number: int) -> Any:
        from seg_runtime.images import read_image

        path = self._samples[number].image_path
        return read_image(path, 1 if self._segmenter.spec.channels == 1 else 3, gray=True)


def main() -> None:
    """Serve requests until stdin closes."""
    # The steering process may end while a call runs; sessions are closed all the same.
    with suppress(BrokenPipeError), _answers() as answer:
        try:
            _serve(iter(sys.stdin.readline, ""), answer)
        except EdgesegError as error:
            answer({"error": str(error)})


def _serve(lines: Iterator[str], answer: Callable[[Mapping[str, Any]], None]) -> None:
    candidate = from_json(Candidate, json.loads(next(lines)))
    with open_session(candidate) as session:
        measurement = Measurement(session, candidate)
        answer(measurement.facts())
        for line in lines:
            request = json.loads(line)
            if request["do"] == "time":
                answer(measurement.time(request["samples"]))
            else:
                answer(measurement.score(request["sample"]))


@contextmanager
def _answers() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Answers go to the original stdout; whatever libraries print there goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        yield lambda message: _write_line(channel, message)


def _write_line(channel: IO[str], message: Mapping[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
