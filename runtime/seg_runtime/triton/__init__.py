"""Talks to a Triton server: connections, tensors on their way, shared memory, errors."""
