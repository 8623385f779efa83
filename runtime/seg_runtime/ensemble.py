"""Models made of other models: whether their steps belong together, and running them in process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.session import Handle, Session, check_same_checkpoint
from seg_runtime.spec import ModelSpec

__all__ = ["check_steps", "run_steps"]


def check_steps(spec: ModelSpec, spec_of: Callable[[str], ModelSpec]) -> None:
    """Refuse an ensemble of which another version, or another checkpoint, would be run than it was made of.

    Args:
        spec: the ensemble.
        spec_of: gives the contract of a model that is served, by name.

    Raises:
        RepositoryError: a model of another version or checkpoint; says what to do.
        ModelNotFoundError: a model is missing.
    """
    for step in spec.steps:
        served = spec_of(step.model)
        # -1, which an ensemble made by hand may have, is any version.
        if step.version not in (-1, served.version):
            raise RepositoryError(
                f"ensemble '{spec.name}' is made of version {step.version} of '{step.model}', and version "
                f"{served.version} is served: run  seg-export rollback {spec.name} --to {spec.version}  or "
                "publish it again"
            )
        try:
            check_same_checkpoint(spec, served)
        except BadInputError as error:
            raise RepositoryError(f"{error}; publish ensemble '{spec.name}' again") from error


def run_steps(
    session: Session, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
) -> dict[str, Any]:
    """Run the steps of an ensemble one after the other; what passes between them stays where it is made.

    Args:
        session: has the models of the steps.
        spec: the ensemble.
        inputs: arrays or handles, checked against `spec`.
        keep: outputs of the ensemble to return as handles.

    Raises:
        RepositoryError, ModelNotFoundError: as from `check_steps`.
        InferenceError, ServerError: as from `Session.infer`.
    """
    check_steps(spec, session.spec)
    tensors: dict[str, Any] = dict(inputs)
    answers = {tensor.name for tensor in spec.outputs}
    with ExitStack() as between:
        for step in spec.steps:
            feed = {name: tensors[tensor] for name, tensor in step.inputs.items()}
            kept = [name for name, tensor in step.outputs.items() if tensor in keep or tensor not in answers]
            made = session.infer(step.model, feed, keep=kept)
            for name, tensor in step.outputs.items():
                tensors[tensor] = made[name]
                if tensor not in answers:
                    between.enter_context(made[name])
    return {tensor.name: tensors[tensor.name] for tensor in spec.outputs}
