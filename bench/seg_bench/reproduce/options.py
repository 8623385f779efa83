"""What to reproduce, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_bench.reproduce.training import Training
from seg_runtime.engines import AUTO, check_engine
from seg_runtime.errors import BadInputError

__all__ = ["ReproduceOptions"]


@dataclass(frozen=True)
class ReproduceOptions:
    """What to reproduce.

    Attributes:
        out: folder of the results.
        budget_s: seconds for all of it, from the start.
        rows: names as of `choose_rows`; empty for all.
        engines: keys of `seg_runtime.engines.ENGINES`, or "auto" for those that suit the machine.
        data: folders of labelled images.
        repo: a repository that has the models; None exports them.
        bundle: of `seg-export bundle`, whose models and images are taken instead.
        train: how rows that have no weights are trained first; None leaves them random.
        command: the command line, for the records.

    Raises:
        BadInputError: a budget that is none, an unknown engine, "auto" with others, or models that are both
            given and trained.
    """

    out: Path
    budget_s: float = 600.0
    rows: tuple[str, ...] = ()
    engines: tuple[str, ...] = (AUTO,)
    data: tuple[Path, ...] = ()
    repo: Path | None = None
    bundle: Path | None = None
    train: Training | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.budget_s <= 0:
            raise BadInputError(f"--budget is {self.budget_s:g} s; it must be more than 0")
        for engine in self.engines:
            check_engine(engine)
        if AUTO in self.engines and len(self.engines) > 1:
            raise BadInputError("--engines auto takes all that suit this machine: leave out the others")
        if self.bundle is not None and (self.repo is not None or self.data):
            raise BadInputError("--bundle brings models and images: leave out --repo and --data")
        if self.train and (self.repo or self.bundle):
            raise BadInputError("--train exports what it has trained: leave out --repo and --bundle")
