"""`seg-bench run`: measure deployed models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seg_bench.cli import run_options as given
from seg_bench.cli.run_options import Baseline
from seg_runtime.cli.options import ApiKeyFileOption, CaOption, ClientCertOption

if TYPE_CHECKING:
    from seg_bench.records import Run

__all__ = ["run"]


def run(
    *,
    suite: given.SuiteOption = None,
    data: given.DataOption = None,
    repo: given.RepoOption = Path("triton_repo"),
    models: given.ModelsOption = "",
    precisions: given.PrecisionsOption = "",
    where: given.WhereOption = "in-process",
    engines: given.EnginesOption = "auto",
    url: given.UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    baseline: given.BaselineOption = None,
    checkpoint: given.CheckpointOption = None,
    part: given.PartOption = None,
    split_file: given.SplitFileOption = None,
    truth: given.TruthOption = None,
    hd95: given.Hd95Option = "directed",
    limit: given.LimitOption = None,
    repeats: given.RepeatsOption = 20,
    warm_up: given.WarmUpOption = "3",
    threads: given.ThreadsOption = None,
    batch: given.BatchOption = "1",
    seed: given.SeedOption = 0,
    concurrency: given.ConcurrencyOption = "",
    rate: given.RateOption = "",
    duration: given.DurationOption = None,
    robustness: given.RobustnessOption = False,
    ood: given.OodOption = None,
    energy: given.EnergyOption = True,
    out: given.OutOption = None,
    as_json: given.JsonOption = False,
) -> None:
    """Measure Dice, IoU, HD95, latency and memory of deployed models, all in turns on one machine.

    A SAM is prompted with a box around each object of the ground truth, all in
    one call; the union of the masks is scored, and the times of its encoder and
    its decoder are shown next to that of the whole call.

    A SAM2 is measured like that by its name, and also by NAME_track1 and
    NAME_track7: one frame of a video that attends to 1 or 7 memories.

    Of a model that finds objects, all masks are pasted into the image, and the
    table also shows mask AP and AP50, how many objects it found too many or too
    few at the contract's score, and the Dice of those found.

    --robustness and --ood ask how far a model can be trusted on what it was not
    trained for: every trained row is scored again under each condition, rows of
    one model in one engine only once.

    Where the machine has a power meter (NVML, tegrastats, jtop, RAPL: see
    seg-bench doctor ), each row then runs alone for some seconds, and the records
    hold its joules per image and its GPU memory.

    Without --url, a server is started for the places that need one. Models of
    more than 256 MiB are measured one at a time, after the others. A row that
    breaks off says why and the others go on; the exit code is then 1. Ctrl-C
    keeps what was measured.

    \b
    Examples:
      seg-bench run --suite montgomery --out results/run.json
      seg-bench run --suite montgomery --precisions fp32,int8 \\
        --engines onnxruntime,openvino
      seg-bench run --data tests/data/montgomery \\
        --where in-process,grpc,http,shared-memory
      seg-bench run --data data/montgomery --part test --models unet_lung \\
        --baseline torch --threads 2
      seg-bench run --data data/montgomery --models unet_lung --batch 1,2,4,8 \\
        --warm-up until-stable
      seg-bench run --data data/montgomery --models unet_lung --where grpc \\
        --concurrency 1,2,4,8 --duration 20
      seg-bench run --data data/montgomery --models unet_lung --where grpc \\
        --rate 5,10,20
      seg-bench run --data data/montgomery --models sam_tiny --baseline torch \\
        --baseline official
      seg-bench run --data data/nuclei --part test --models maskrcnn_nuclei \\
        --baseline torch
      seg-bench run --data data/montgomery --part test --robustness \\
        --ood data/shenzhen --out run.json
      seg-bench run --data data/readers --models unet_lung --truth staple
      seg-bench run --data data/montgomery --url grpc://jetson:8001 --where grpc
    """
    import sys

    from seg_bench.machine import shown_command
    from seg_bench.run import options as texts
    from seg_bench.run.runner import measure
    from seg_runtime.console import progress_bar
    from seg_runtime.triton.access import ServerAccess

    warm_up_calls, until_stable = texts.warm_up_of(warm_up)
    options = texts.RunOptions(
        repo=repo,
        **_images(suite, data, part),
        split_file=split_file,
        truth=truth,
        hd95=hd95,
        limit=limit,
        models=texts.split_names(models),
        precisions=texts.split_names(precisions),
        where=texts.places_of(where),
        engines=texts.engines_of(engines),
        url=url,
        access=ServerAccess(api_key_file, ca, client_cert),
        **_baselines(baseline or []),
        checkpoint=checkpoint,
        repeats=repeats,
        warm_up=warm_up_calls,
        until_stable=until_stable,
        threads=threads,
        batches=texts.counts_of("--batch", batch),
        concurrency=texts.counts_of("--concurrency", concurrency) if concurrency else (),
        rates=texts.rates_of(rate) if rate else (),
        duration_s=duration,
        seed=seed,
        energy=energy,
        robustness=robustness,
        ood=ood,
    )
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        measured = measure(
            options,
            shown_command(sys.argv),
            lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    _show(measured, out, as_json)
    if not measured.complete:
        raise KeyboardInterrupt
    if any(record.failure for record in measured.records):
        raise typer.Exit(1)


def _images(suite: str | None, data: Path | None, part: given.Part | None) -> dict[str, Any]:
    """The options of `RunOptions` that say which images. Raises BadInputError without a folder of them."""
    from seg_bench.run.suites import SUITES, find_suite
    from seg_runtime.errors import BadInputError

    chosen = part.value if part else None
    if suite is not None:
        found, folder = find_suite(suite, data)
        return {"suite": found, "data": folder, "part": chosen or found.part}
    if data is None:
        raise BadInputError(f"no images: give a folder with --data, or --suite {'|'.join(SUITES)}")
    return {"data": data, "part": chosen}


def _baselines(chosen: list[Baseline]) -> dict[str, Any]:
    """The options of `RunOptions` that stand for them. Raises BadInputError for PyTorch in both orders."""
    from seg_runtime.errors import BadInputError

    channels_last = Baseline.TORCH_CHANNELS_LAST in chosen
    if channels_last and Baseline.TORCH in chosen:
        raise BadInputError("--baseline torch and torch-channels-last are one row: choose one of them")
    return {
        "baseline": channels_last or Baseline.TORCH in chosen,
        "channels_last": channels_last,
        "compiled": Baseline.TORCH_COMPILE in chosen,
        "official": Baseline.OFFICIAL in chosen,
    }


def _show(measured: Run, out: Path | None, as_json: bool) -> None:
    from seg_bench.record_files import write_run
    from seg_bench.report.json_report import to_json_report
    from seg_bench.report.terminal import print_report
    from seg_runtime.console import stdout_console

    if out is not None:
        write_run(measured, out)
        typer.echo(f"wrote {out}", err=True)
    if as_json:
        typer.echo(to_json_report([measured]), nl=False)
    else:
        print_report([measured], stdout_console())
    for record in measured.records:
        if record.failure:
            typer.echo(f"failed: {record.model.name}, {record.where}: {record.failure}", err=True)
