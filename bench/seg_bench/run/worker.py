"""One candidate in a process of its own: `python -m seg_bench.run.worker`, steered by JSON lines.

A process each, so that a candidate's peak memory is its own, its allocator can be tuned by
environment variables, and two runtimes' thread pools never meet. The first line on stdin is a
`Candidate`; the answer holds the facts of its model. Then one request per line and one answer per
line on stdout, until stdin closes:

    {"do": "time", "samples": [0, 1]}    -> milliseconds per stage of one call with these images
    {"do": "mask", "sample": 0, "path": "a.npy"}
                                         -> {}; its mask, (H, W) bool, is in this file
    {"do": "score", "sample": 0, "classes": 4, "spacing_hw": [0.2, 0.2], "hd95": "directed"}
                                         -> dice, iou and hd95 of one image, and how well objects were found
    {"do": "objects", "limit": 100}      -> ap and ap50 of all images that were scored
    {"do": "classes"}                    -> how well each class was found, of all that were scored
    {"do": "load", "concurrency": 4, "rate_per_s": null, "duration_s": 10}
                                         -> latency of every call under that load; SIGINT ends it early
    {"do": "hold", "calls": [[0, 1]]}    -> {}; these images are read
    {"do": "repeat", "seconds": 2}       -> how many calls with them were made, back to back
    {"do": "dice", "sample": {...}}      -> dice of an image that need not be one of the candidate's

"do" names a method of `Measurement`, the other keys are its arguments.
An answer {"error": "..."} ends the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from seg_bench.candidate import Candidate
from seg_bench.data.find import find_samples, sample_from_json
from seg_bench.data.splits import select
from seg_bench.json_fields import from_json, to_json
from seg_bench.metrics import Hd95Definition
from seg_bench.pipelines import Pipeline, open_pipeline, pipeline_of_thread
from seg_bench.run.load_generator import MOST_IN_FLIGHT, closed_loop, open_loop
from seg_bench.run.server_time import ServerClock
from seg_runtime.boundary import known_error
from seg_runtime.errors import EdgesegError

__all__ = ["Measurement", "main"]


_REQUESTS = ("facts", "time", "mask", "score", "objects", "classes", "dice", "hold", "repeat", "load")
_IMAGES_UNDER_LOAD = 16
"""Images that are read before a load begins, and come again and again."""
_IMAGES_HELD = 4


class Measurement:
    """Runs a candidate on its images, the way users do.

    Args:
        pipeline: the candidate's.
        candidate: the images.
        clock: of the server that computes, where one does.

    Raises:
        BadInputError: missing samples.
    """

    def __init__(self, pipeline: Pipeline, candidate: Candidate, clock: ServerClock | None = None) -> None:
        from seg_bench.run.scoring import Scorer

        self._pipeline, self._candidate, self._clock = pipeline, candidate, clock
        self._scorer, self._stop = Scorer(), threading.Event()
        self._samples = select(find_samples(Path(candidate.data), candidate.truth), candidate.samples)
        self._held: list[list[Any]] = []
        self._read: dict[int, Any] = {}

    def facts(self) -> dict[str, Any]:
        """What the session says about itself: where tensors really travel, and what computes."""
        return {"where": self._pipeline.where, "engine": self._pipeline.engine}

    def time(self, samples: Sequence[int]) -> dict[str, float]:
        """Segment these images in one call; milliseconds per stage and in total.

        Reading the files is not part of it, copying the result into the image's frame is. With a server there
        is also `transfer`, what it did not compute of `infer`, where it can be known.
        """
        inputs = [self._image(number) for number in samples]
        if self._clock is None:
            return dict(self._pipeline.run(inputs).spent_ms)
        self._clock.start()
        spent = dict(self._pipeline.run(inputs).spent_ms)
        computed_ms = self._clock.stop()
        if computed_ms is None:
            return spent
        # A server may have counted a little that it did once the answer had left.
        return {**spent, "transfer": max(spent["infer"] - computed_ms, 0.0)}

    def load(self, concurrency: int | None, rate_per_s: float | None, duration_s: float) -> dict[str, Any]:
        """Calls from several threads, as `seg_bench.run.load_generator` makes them; images come in turns."""
        images = [self._pipeline.load(sample) for sample in self._samples[:_IMAGES_UNDER_LOAD]]
        with ExitStack() as stack:
            pipelines = [
                stack.enter_context(pipeline_of_thread(self._pipeline))
                for _ in range(concurrency or MOST_IN_FLIGHT)
            ]
            calls = [_call_of(pipeline, images, self._candidate.batch) for pipeline in pipelines]
            if rate_per_s is None:
                load = closed_loop(calls, duration_s, self._stop)
            else:
                load = open_loop(calls, rate_per_s, duration_s, self._stop)
        return load.result()

    def end_load(self) -> None:
        """Let the load that runs end with the calls in flight; may be called from a signal handler."""
        self._stop.set()

    def mask(self, sample: int, path: str) -> dict[str, Any]:
        """Write the mask of one image, (H, W) bool in its frame, as a NumPy file."""
        (mask,) = self._pipeline.run([self._image(sample)]).masks
        np.save(path, mask)
        return {}

    def score(
        self, sample: int, classes: int, spacing_hw: Sequence[float] | None, hd95: Hd95Definition
    ) -> dict[str, float]:
        """As `Scorer.score`, of the image of this number."""
        named = self._samples[sample]
        outcome = self._pipeline.run([self._pipeline.load(named)])
        pixel = (spacing_hw[0], spacing_hw[1]) if spacing_hw else None
        return self._scorer.score(named, outcome, classes, pixel, hd95)

    def objects(self, limit: int) -> dict[str, Any]:
        """As `Scorer.objects`."""
        return self._scorer.objects(limit)

    def classes(self) -> dict[str, Any]:
        """As `Scorer.classes`."""
        found = self._scorer.classes()
        return {"classes": found and to_json(found)}

    def hold(self, calls: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Read the images of these calls for `repeat`."""
        self._held = [[self._pipeline.load(self._samples[number]) for number in call] for call in calls]
        return {}

    def repeat(self, seconds: float) -> dict[str, int]:
        """Go round the held calls, one at least, until so many seconds have passed."""
        made, end = 0, time.monotonic() + seconds
        while made == 0 or time.monotonic() < end:
            self._pipeline.run(self._held[made % len(self._held)])
            made += 1
        return {"calls": made}

    def _image(self, number: int) -> Any:
        """Read at most `_IMAGES_HELD` images once: between fast calls a device would wait for the next."""
        if number not in self._read:
            if len(self._read) == _IMAGES_HELD:
                self._read.pop(next(iter(self._read)))
            self._read[number] = self._pipeline.load(self._samples[number])
        return self._read[number]

    def dice(self, sample: Mapping[str, Any]) -> dict[str, float]:
        """As `scoring.foreground_dice`, of what `sample_to_json` made; `objects` leaves it out."""
        from seg_bench.run.scoring import foreground_dice

        read = sample_from_json(sample)
        return {"dice": foreground_dice(read, self._pipeline.run([self._pipeline.load(read)]))}


def main() -> None:
    """Serve requests until stdin closes."""
    # The steering process may end while a call runs; sessions are closed all the same.
    with suppress(BrokenPipeError), _answers() as answer:
        try:
            _serve(iter(sys.stdin.readline, ""), answer)
        except Exception as error:  # noqa: BLE001 - whatever it is ends this row alone
            answer({"error": str(known_error(error))})


def _serve(lines: Iterator[str], answer: Callable[[Mapping[str, Any]], None]) -> None:
    candidate = from_json(Candidate, json.loads(next(lines)))
    begun = time.perf_counter()
    with ExitStack() as stack:
        pipeline = stack.enter_context(open_pipeline(candidate))
        load_ms = 1000 * (time.perf_counter() - begun)
        measurement = Measurement(pipeline, candidate, _server_clock(candidate, stack))
        # Python runs handlers in the main thread, which waits for the threads of a load.
        signal.signal(signal.SIGINT, lambda number, frame: measurement.end_load())
        answer({**measurement.facts(), "load_ms": load_ms})
        for line in lines:
            request = json.loads(line)
            do = request.pop("do")
            if do not in _REQUESTS:
                raise EdgesegError(f"the worker knows no request '{do}': it takes {', '.join(_REQUESTS)}")
            answer(getattr(measurement, do)(**request))


def _server_clock(candidate: Candidate, stack: ExitStack) -> ServerClock | None:
    if not candidate.parts:
        return None
    return stack.enter_context(closing(ServerClock(candidate.target, candidate.parts, candidate.access)))


def _call_of(pipeline: Pipeline, images: Sequence[Any], batch: int) -> Callable[[int], object]:
    return lambda number: pipeline.run([images[(number * batch + i) % len(images)] for i in range(batch)])


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
