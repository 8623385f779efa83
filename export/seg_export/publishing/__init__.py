"""Versions of models in a repository: appear whole, are listed, served again and removed."""
