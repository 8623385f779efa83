"""Data sets: loaders, fixed splits, statistics and downloads."""
