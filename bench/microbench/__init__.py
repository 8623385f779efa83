"""Small committed benchmarks of single functions, run with `python -m`."""
