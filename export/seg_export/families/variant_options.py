"""The options that `seg-export sam` and `seg-export sam2` share, and the weights that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seg_export.cli.fetching import fetch
from seg_export.cli.given import refuse_without
from seg_export.cli.options import OpsetOption, RandomOption, SeedOption, WeightsNameOption, require_torch
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.licences import Licence
    from seg_export.families.variants import Variants

__all__ = ["GraphOptions", "VariantOptions"]


@dataclass(frozen=True, kw_only=True)
class VariantOptions:
    """Which weights to export, and of what size they are: a subclass per family."""

    variant: Annotated[str | None, typer.Option(help="Official size.")] = None
    variant_config: Annotated[
        Path | None,
        typer.Option("--variant-config", help="JSON file with the constructor arguments of another size."),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Checkpoint file with the weights, or a folder of Hugging Face transformers.",
        ),
    ] = None
    weights_name: WeightsNameOption = None
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the official checkpoint; its SHA-256 is checked.")
    ] = False
    random: RandomOption = False
    seed: SeedOption = 0

    def sources(self) -> dict[str, bool]:
        """The options but --random that name weights, and which were given."""
        return {"--checkpoint FILE": self.checkpoint is not None, "--download": self.download}

    def check(self, context: typer.Context, title: str, example: str) -> None:
        """Refuse options that cannot take effect.

        Args:
            context: of the command.
            title: of the family, for messages.
            example: names of its official sizes, for messages.

        Raises:
            BadInputError: names the options, and what to do.
            MissingExtraError: PyTorch is not installed.
        """
        sources = self.sources()
        if [*sources.values(), self.random].count(True) != 1:
            raise BadInputError(f"name the weights with exactly one of {', '.join(sources)} and --random")
        if self.variant is not None and self.variant_config is not None:
            raise BadInputError(
                f"--variant and --variant-config both say which {title} it is: pass one of them"
            )
        if self.download and self.variant_config is not None:
            raise BadInputError(
                f"--download fetches official checkpoints: pass --variant {example} instead of "
                "--variant-config"
            )
        refuse_without(context, "checkpoint", "weights_name")
        refuse_without(context, "random", "seed")
        require_torch()

    def arguments(self, variants: Variants) -> dict[str, Any] | None:
        """Constructor arguments of the size that was named, if one was. Raises BadInputError."""
        if self.variant_config is not None:
            return variants.read(self.variant_config)
        return variants.arguments(self.variant) if self.variant is not None else None

    def file(self, variants: Variants, default: str, licence: Licence) -> Path:
        """The file or folder of weights that was named; an official one is fetched where it is not there yet.

        Args:
            variants: of the family.
            default: the size that is fetched where none was named.
            licence: of the official weights.

        Raises:
            EdgesegError: as `Variants.download`.
        """
        if self.download:
            return fetch(self.variant or default, variants.download, licence)
        return self.checkpoint or Path()


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """How the graphs are written, and how Triton serves them."""

    opset: OpsetOption = 18
    instances: Annotated[int, typer.Option(min=1, help="Copies of each model that run at once.")] = 1
    no_warm_up: Annotated[
        bool, typer.Option("--no-warm-up", help="Do not run a first request before a model is ready.")
    ] = False

    def serving(self) -> ServingSpec:
        """For the models' configuration."""
        return ServingSpec(instances=self.instances, warm_up=not self.no_warm_up)
