"""Proves that a graph computes what its reference computes."""
