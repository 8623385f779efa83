"""TensorRT engines from published graphs: tried ahead of time anywhere, built where they run."""
