"""edgeseg's bench: data sets, metrics, the training recipe, and the Dice / latency table."""

import seg_runtime  # noqa: F401 - before any library that it keeps from sending telemetry
