"""`seg-bench run`: what to measure, the phases that measure it, and the record of it."""
