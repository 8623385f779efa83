"""The commands `seg-run` and `seg-serve`."""
