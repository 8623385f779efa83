"""What `sam2_speed` runs in processes of their own: the export of the graphs, and turns of a form."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microbench.sam2_models import CHECKPOINT, MODEL, MovingShapes, publish_random
from seg_bench.memory import peak_memory_mib

__all__ = ["EAGER", "ENGINES", "FRAMES", "answer_file", "time_form", "tracked_frame"]

EAGER = "sam2 in PyTorch"
ENGINES = {"edgeseg, ONNX Runtime": "onnxruntime", "edgeseg, OpenVINO": "openvino"}
"""Our forms, and the engine of `seg_runtime.connect` that computes each."""

FRAMES = 32
"""Of the video that the tracked frame belongs to: pointers then reach back 15 frames."""

_FULL = 7
_LONG = 16

Answer = dict[str, NDArray[Any]]
Run = Callable[[], Answer]


def tracked_frame(memories: int) -> int:
    """Index of a frame that has so many memories: the prompt on frame 0, and tracked frames since.

    With all 7 it is frame 16, which also has all 16 pointers; before, there are as many as memories.
    """
    return memories if memories < _FULL else _LONG


def answer_file(folder: Path, form: str, part: str, count: int) -> Path:
    """Where a turn leaves what it computed."""
    return folder / f"{ENGINES.get(form, 'eager')}-{part}-{count}.npz"


def time_form(folder: Path, form: str, part: str, count: int, repeats: int, threads: int) -> dict[str, Any]:
    """Milliseconds of calls after one to warm up, and the process's peak memory; the answer goes to a file.

    Args:
        folder: from `publish_random`.
        form: `EAGER` or one of `ENGINES`.
        part: "encode", "decode" or "track".
        count: of prompts or memories; 1 for "encode".
        repeats: timed calls.
        threads: of the runtime.
    """
    if form == EAGER:
        run = _eager(folder, part, count, threads)
    else:
        run = _ours(folder, ENGINES[form], part, count, threads)
    answer, samples_ms = run(), []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        samples_ms.append(1000 * (time.perf_counter() - start))
    np.savez(answer_file(folder, form, part, count), **answer)
    return {"samples_ms": samples_ms, "peak_memory_mib": peak_memory_mib(os.getpid())}


def _ours(folder: Path, engine: str, part: str, count: int, threads: int) -> Run:
    from seg_runtime import connect
    from seg_runtime.sam2.graphs import Sam2Graphs
    from seg_runtime.sam2.models import VIDEO_PARTS

    session = connect(folder / "repo", threads=threads, engine=engine)
    graphs = Sam2Graphs(session, MODEL, VIDEO_PARTS)
    image = _image(graphs.side)
    if part == "encode":
        return lambda: session.infer(f"{MODEL}_image_encoder", {"image": image[None]})
    if part == "track":
        return _our_track(graphs, count)
    features = graphs.encode(image)
    coords, labels = _clicks(count, graphs.side)
    return lambda: {
        "low_res_masks": graphs.decode(features, coords, labels, add_no_memory=True).low_res[:, 1:]
    }


def _our_track(graphs: Any, memories: int) -> Run:
    from seg_runtime.sam2.frames import FrameReader
    from seg_runtime.sam2.memory_bank import FrameOutput
    from seg_runtime.sam2.state import InferenceState, TrackedObject
    from seg_runtime.sam2.tracker import ObjectTracker

    frame, tracked = tracked_frame(memories), TrackedObject()
    state = InferenceState(graphs, FrameReader(_Still(FRAMES, (graphs.side, graphs.side))))
    side, score = graphs.low_res_side, np.full((1, 1), 10, np.float32)
    for index, (memory, pointer) in _past(memories, graphs.side).items():
        mask = np.zeros((1, 1, side, side), np.float32)
        output = FrameOutput(mask, pointer, score, from_prompt=not index, memory=memory)
        (tracked.bank.non_cond if index else tracked.bank.cond)[index] = output
    tracker = ObjectTracker(graphs, fill_hole_area=0, clear_around_input=False)
    state.features(frame)  # Encoded once, and then kept: encoding is timed apart.

    def run() -> Answer:
        output = tracker.track(state, tracked, frame, reverse=False)
        # The same frame is tracked again as if it never was.
        del tracked.bank.non_cond[frame]
        return {
            "low_res_masks": output.low_res,
            "memory": tracker.remember(state, frame, output),
            "object_pointer": output.pointer,
        }

    return run


def _eager(folder: Path, part: str, count: int, threads: int) -> Run:
    import torch

    from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
    from seg_export.families.sam2.reference import EncoderReference

    torch.set_num_threads(threads)
    sam2: Any = build_model(load_checkpoint(folder / CHECKPOINT))
    pixels = torch.from_numpy(_image(sam2.image_size)[None].copy())
    encoder = EncoderReference(sam2)

    @torch.inference_mode()
    def encode() -> Answer:
        names = ("image_embeddings", "high_res_features_0", "high_res_features_1")
        return {name: level.numpy() for name, level in zip(names, encoder(pixels), strict=True)}

    if part == "encode":
        return encode
    return (_eager_decode if part == "decode" else _eager_track)(sam2, encode(), count)


def _eager_decode(sam2: Any, features: Mapping[str, Any], prompts: int) -> Run:
    """As `SAM2ImagePredictor._predict` does, all prompts at once, without resizing to the image."""
    import torch

    levels = [torch.from_numpy(features[f"high_res_features_{index}"]) for index in range(2)]
    embeddings = torch.from_numpy(features["image_embeddings"]) + sam2.no_mem_embed.detach().reshape(
        1, -1, 1, 1
    )
    points = tuple(torch.from_numpy(values) for values in _clicks(prompts, sam2.image_size))

    @torch.inference_mode()
    def run() -> Answer:
        sparse, dense = sam2.sam_prompt_encoder(points=points, boxes=None, masks=None)
        masks, _, _, _ = sam2.sam_mask_decoder(
            image_embeddings=embeddings,
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=prompts > 1,
            high_res_features=levels,
        )
        return {"low_res_masks": masks.numpy()}

    return run


def _eager_track(sam2: Any, features: Mapping[str, Any], memories: int) -> Run:
    """`SAM2Base.track_step`, as `SAM2VideoPredictor` calls it on a frame without prompts."""
    import torch

    frame, past = tracked_frame(memories), _past(memories, sam2.image_size)
    names = ("high_res_features_0", "high_res_features_1", "image_embeddings")
    levels = [torch.from_numpy(features[name]) for name in names]
    positions = [sam2.image_encoder.neck.position_encoding(level) for level in levels]
    of_memory = sam2.memory_encoder.position_encoding(torch.from_numpy(past[0][0]))
    outputs = {
        index: {
            # The predictor keeps memories in this type, which loses nothing of these.
            "maskmem_features": torch.from_numpy(memory).to(torch.bfloat16),
            "maskmem_pos_enc": [of_memory],
            "obj_ptr": torch.from_numpy(pointer),
        }
        for index, (memory, pointer) in past.items()
    }
    bank = {
        "cond_frame_outputs": {0: outputs[0]},
        "non_cond_frame_outputs": {index: output for index, output in outputs.items() if index},
    }

    @torch.inference_mode()
    def run() -> Answer:
        output = sam2.track_step(
            frame_idx=frame,
            is_init_cond_frame=False,
            current_vision_feats=[level.flatten(2).permute(2, 0, 1) for level in levels],
            current_vision_pos_embeds=[level.flatten(2).permute(2, 0, 1) for level in positions],
            feat_sizes=[tuple(level.shape[-2:]) for level in levels],
            point_inputs=None,
            mask_inputs=None,
            output_dict=bank,
            num_frames=FRAMES,
        )
        return {
            "low_res_masks": output["pred_masks"].numpy(),
            "memory": output["maskmem_features"].to(torch.bfloat16).float().numpy(),
            "object_pointer": output["obj_ptr"].numpy(),
        }

    return run


class _Still(MovingShapes):
    """Every frame is the first one, so that all parts work on the same image."""

    def _read(self, index: int) -> NDArray[np.uint8]:
        return super()._read(0)


def _image(side: int) -> NDArray[np.uint8]:
    return _Still(FRAMES, (side, side)).frame(0)


def _clicks(prompts: int, side: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """One point per prompt: (N, 1, 2) in pixels of the model's input, and labels (N, 1)."""
    coords = np.random.default_rng(0).uniform(0, side, (prompts, 1, 2))
    return coords.astype(np.float32), np.ones((prompts, 1), np.int32)


def _past(memories: int, side: int) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Memory (1, 64, G, G), cut to bfloat16, and pointer (1, 256) of each frame before the tracked one."""
    generator, grid = np.random.default_rng(1), side // 16
    past = {}
    for index in range(tracked_frame(memories)):
        memory = generator.standard_normal((1, 64, grid, grid), np.float32)
        rounded = (memory.view(np.uint32) & 0xFFFF0000).view(np.float32)
        past[index] = rounded, generator.standard_normal((1, 256), np.float32)
    return past


def main(arguments: list[str]) -> None:
    """`prepare FOLDER ARGUMENTS` (JSON of `build_sam2`'s) or `time FOLDER FORM PART COUNT REPEATS`."""
    what, folder, *rest = arguments
    if what == "prepare":
        publish_random(json.loads(rest[0]), Path(folder))
        return
    form, part, count, repeats = rest
    threads = int(os.environ["OMP_NUM_THREADS"])
    answer = time_form(Path(folder), form, part, int(count), int(repeats), threads)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
