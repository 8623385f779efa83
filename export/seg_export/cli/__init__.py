"""The commands of `seg-export` that every family shares, and what all of them need."""
