"""The libraries that models run on send nothing to their makers."""

from __future__ import annotations

import os
import sys

__all__ = ["switch_off"]


def switch_off() -> None:
    """Keep ONNX Runtime and OpenVINO from reporting, if they are loaded after this.

    ONNX Runtime (since 1.32) writes an identifier of the machine below ~/.cache/Microsoft and looks up a host
    of its maker; it reads the variable when it is loaded, and processes that this one starts inherit it.
    OpenVINO writes one below ~/intel and sends an event to Google Analytics whenever it is imported; it goes
    on without where its package openvino_telemetry cannot be imported. What the user has set or imported
    before stays as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
