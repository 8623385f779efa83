"""segment_anything's own exported decoder, behind the same encoder as ours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from seg_bench.data.find import ShownSample
from seg_bench.official_decoder import decoder_file
from seg_bench.pipelines import Outcome
from seg_bench.pipelines.sam import BoxPrompts, TimedSession, load_box_prompts, sam_outcome
from seg_runtime.sam import SamPredictor
from seg_runtime.session import Session

__all__ = ["OfficialDecoderPipeline"]


class OfficialDecoderPipeline:
    """Our encoder, then `SamOnnxModel` in ONNX Runtime, once per box: it takes no more at a time.

    Whatever differs from `SamPipeline` in process so lies in the decoder. Close it, or use `with`.

    Args:
        session: runs the encoder in process.
        name: the SAM's.
        decoders: folder of `seg_bench.official_decoder.export_official_decoders`.
        threads: intra-op threads, or None for ONNX Runtime's own choice.

    Raises:
        ModelNotFoundError, BadInputError: as `SamPredictor`.
    """

    def __init__(self, session: Session, name: str, decoders: Path, threads: int | None = None) -> None:
        self._session = TimedSession(session)
        self._predictor = SamPredictor(self._session, name)
        self._decoders = decoders
        self._threads = threads
        self._graphs: dict[Path, Any] = {}
        self.where = session.where
        self.engine = session.engine(f"{name}_encoder")

    def load(self, sample: ShownSample) -> BoxPrompts:
        """The image and its boxes; also loads the graph for images of this shape."""
        case = load_box_prompts(sample)
        self._graph(case)
        return case

    def run(self, inputs: Sequence[BoxPrompts]) -> Outcome:
        """Segment one image, its encoding included."""
        (case,) = inputs
        predictor, graph = self._predictor, self._graph(case)
        self._session.spent_ms.clear()
        start = time.perf_counter()
        predictor.set_image(case.image)
        embedding = predictor.get_image_embedding()
        encoded = time.perf_counter()
        side = 4 * embedding.shape[-1]
        corners = predictor.transform.apply_boxes(case.boxes_xyxy, case.size_hw).reshape(-1, 1, 2, 2)
        common = {
            "image_embeddings": embedding,
            "point_labels": np.array([[2, 3]], np.float32),
            "mask_input": np.zeros((1, 1, side, side), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array(case.size_hw, np.float32),
        }
        logits = [
            graph.run(["masks"], {**common, "point_coords": box})[0] for box in corners.astype(np.float32)
        ]
        decoded = time.perf_counter()
        mask = (np.concatenate(logits)[:, 0] > predictor.mask_threshold).any(axis=0)
        end = time.perf_counter()
        return sam_outcome(
            mask,
            before_decoder_ms=1000 * (encoded - start),
            total_ms=1000 * (end - start),
            encode_ms=self._session.spent_ms["sam-encoder"],
            decode_ms=1000 * (decoded - encoded),
        )

    def close(self) -> None:
        """Free the graphs and the embedding; the session stays open."""
        self._graphs.clear()
        self._predictor.close()

    def __enter__(self) -> OfficialDecoderPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _graph(self, case: BoxPrompts) -> Any:
        side = self._predictor.transform.target_length
        path = decoder_file(self._decoders, case.size_hw, side)
        if path not in self._graphs:
            import onnxruntime as ort

            options = ort.SessionOptions()
            options.log_severity_level = 3
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            providers = ["CPUExecutionProvider"]
            self._graphs[path] = ort.InferenceSession(str(path), options, providers=providers)
        return self._graphs[path]
