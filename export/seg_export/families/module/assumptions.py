"""What was stated of a user's network, and what was not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from seg_export.checkpoints.assumption import Assumption, input_size, text
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["module_assumptions"]


def module_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Where the weights are from, which output counts, and how images are prepared."""
    arguments, preprocessing = checkpoint.arguments, checkpoint.preprocessing
    origins: dict[str, Literal["option", "file"]] = {
        **{_option(name): "option" for name in checkpoint.stated},
        **{_option(name): "file" for name in checkpoint.carried},
        **checkpoint.metadata["origins"],
    }

    def row(what: str, value: str, option: str) -> Assumption:
        return Assumption(what, value, origins.get(option, "assumed"), option)

    yield Assumption("weights", str(checkpoint.metadata.get("source", "")), "file", "--checkpoint")
    if arguments["outputs"]:
        chosen = f"{arguments['output']} of {', '.join(arguments['outputs'])}"
        yield Assumption("output", chosen, "file", "--output")
    if arguments["output_hw"] != spec.input_size_hw:
        height, width = arguments["output_hw"]
        yield Assumption("output size", f"{height}x{width}, resized bilinearly in the graph", "file")
    yield row("activation", arguments["activation"], "--activation")
    yield Assumption("channels", f"{spec.channels}", "file")
    yield row("mean", text(preprocessing.mean), "--mean")
    yield row("std", text(preprocessing.std), "--std")
    yield row("pixel scale", f"pixels / {preprocessing.scale:g}", "--scale")
    if spec.channels == 3:
        yield row("channel order", preprocessing.channel_order.upper(), "--channel-order")
    if spec.channels in (1, 3):
        yield row("CLAHE", "as seg-run applies it" if preprocessing.clahe else "none", "--clahe")
    yield Assumption("classes", f"{len(spec.class_names)}", "file")
    yield row("class names", ", ".join(spec.class_names[:3]), "--class-names")
    size = input_size(spec, size_given)
    yield size if size_given else row(size.what, size.value, "--size")
    if len(spec.class_names) == 1:
        yield row("threshold", f"{spec.threshold:g}", "--threshold")


def _option(name: str) -> str:
    return {"size_hw": "--size"}.get(name, f"--{name.replace('_', '-')}")
