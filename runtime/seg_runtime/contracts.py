"""Where the contracts of models are read: a session, or a repository on disk."""

from __future__ import annotations

from typing import Protocol

from seg_runtime.spec import ModelSpec

__all__ = ["Contracts", "ListedContracts"]


class Contracts(Protocol):
    """Gives the contract of a model."""

    def spec(self, model: str) -> ModelSpec:
        """The contract of a model. Raises ModelNotFoundError."""


class ListedContracts(Contracts, Protocol):
    """Also tells which models there are."""

    def models(self) -> tuple[str, ...]:
        """Names of all models, sorted."""
