"""What makes probabilities of a network's outputs, checked against the values that it gives."""

from __future__ import annotations

from typing import Literal

from seg_runtime.errors import BadInputError

__all__ = ["Activation", "activation_of"]

Activation = Literal["sigmoid", "softmax", "none"]
"""What turns logits into probabilities; "none" for outputs that are probabilities."""

_ROUNDING = 1e-3


def activation_of(
    wanted: Activation | None, classes: int, lowest: float, highest: float, what: str
) -> Activation:
    """The activation of a network: what was asked for, or a sigmoid of one class and a softmax over several.

    Args:
        wanted: None where nobody said.
        classes: how many maps the output has.
        lowest: of its values, of noise and other images.
        highest: of its values.
        what: the output, for messages.

    Raises:
        BadInputError: nobody said, and the values may be probabilities already, of which another sigmoid
            makes foreground of everything; they were said to be and are not; or a softmax over one class.

    Example:
        >>> activation_of(None, 1, -4.2, 3.1, "the output")
        'sigmoid'
    """
    if wanted == "softmax" and classes == 1:
        raise BadInputError("--activation softmax: of one class it gives 1 everywhere; pass sigmoid or none")
    inside = lowest >= -_ROUNDING and highest <= 1 + _ROUNDING
    if wanted == "none" and not inside:
        raise BadInputError(
            f"--activation none: {what} has values from {lowest:.3g} to {highest:.3g}, which are no "
            "probabilities: pass sigmoid or softmax"
        )
    usual: Activation = "sigmoid" if classes == 1 else "softmax"
    if wanted is None and inside:
        raise BadInputError(
            f"{what} has values from {lowest:.3g} to {highest:.3g}, which may be probabilities already: pass "
            f"--activation none if they are, else --activation {usual}"
        )
    return wanted or usual
