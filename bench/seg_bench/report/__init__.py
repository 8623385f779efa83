"""Reports: views of the records that `seg-bench run` wrote. Needs NumPy and rich, nothing heavier."""
