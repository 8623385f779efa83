"""edgeseg's exporter: checkpoint to verified ONNX graph to published version of a model repository."""

import seg_runtime  # noqa: F401 - before any library that it keeps from sending telemetry
