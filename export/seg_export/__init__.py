"""edgeseg's exporter: checkpoint to verified ONNX graph to published version of a model repository."""
