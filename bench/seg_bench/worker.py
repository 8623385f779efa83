"""One candidate in a process of its own: `python -m seg_bench.worker`, steered by JSON lines.

A process each, so that a candidate's peak memory is its own, its allocator can be tuned by
environment variables, and two runtimes' thread pools never meet. The first line on stdin is a
`Candidate`; the answer holds the facts of its model. Then one request per line and one answer per
line on stdout, until stdin closes:

    {"do": "time", "samples": [0, 1]}    -> milliseconds per stage of one call with these images
    {"do": "score", "sample": 0}         -> dice, iou and hd95 of one image, and how well objects were found
    {"do": "objects", "limit": 100}      -> ap and ap50 of all images that were scored
    {"do": "dice", "sample": {...}}      -> dice of an image that need not be one of the candidate's

An answer {"error": "..."} ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from seg_bench.candidate import Candidate
from seg_bench.data.find import find_samples, told_sample
from seg_bench.data.splits import select
from seg_bench.json_fields import from_json
from seg_bench.pipelines import Pipeline, open_pipeline
from seg_runtime.errors import EdgesegError

__all__ = ["Measurement", "main"]


class Measurement:
    """Runs a candidate on its images, the way users do.

    Args:
        pipeline: the candidate's.
        candidate: the images.

    Raises:
        BadInputError: missing samples.
    """

    def __init__(self, pipeline: Pipeline, candidate: Candidate) -> None:
        from seg_bench.scoring import Scorer

        self._pipeline, self._scorer = pipeline, Scorer()
        self._samples = select(find_samples(Path(candidate.data)), candidate.samples)

    def facts(self) -> dict[str, Any]:
        """What the session says about itself: where tensors really travel, and what computes."""
        return {"where": self._pipeline.where, "engine": self._pipeline.engine}

    def time(self, samples: Sequence[int]) -> dict[str, float]:
        """Segment these images in one call; milliseconds per stage and in total.

        Reading the files is not part of it, copying the result into the image's frame is.
        """
        inputs = [self._pipeline.load(self._samples[number]) for number in samples]
        return dict(self._pipeline.run(inputs).spent_ms)

    def score(self, number: int) -> dict[str, float]:
        """As `Scorer.score`, of one image."""
        sample = self._samples[number]
        return self._scorer.score(sample, self._pipeline.run([self._pipeline.load(sample)]))

    def objects(self, limit: int) -> dict[str, Any]:
        """As `Scorer.objects`."""
        return self._scorer.objects(limit)

    def dice(self, sample: Mapping[str, Any]) -> dict[str, float]:
        """As `seg_bench.scoring.foreground_dice`, of what `tell_sample` told of; `objects` leaves it out."""
        from seg_bench.scoring import foreground_dice

        told = told_sample(sample)
        return {"dice": foreground_dice(told, self._pipeline.run([self._pipeline.load(told)]))}


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
    with open_pipeline(candidate) as pipeline:
        measurement = Measurement(pipeline, candidate)
        answer(measurement.facts())
        for line in lines:
            request = json.loads(line)
            if request["do"] == "time":
                answer(measurement.time(request["samples"]))
            elif request["do"] == "score":
                answer(measurement.score(request["sample"]))
            elif request["do"] == "dice":
                answer(measurement.dice(request["sample"]))
            else:
                answer(measurement.objects(request["limit"]))


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
