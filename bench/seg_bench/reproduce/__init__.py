"""The whole table of a device from one command: what `seg-bench reproduce` does."""
