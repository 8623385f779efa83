"""`seg-bench data`: get data sets, prepare and split them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seg_runtime.console import progress_bar, stderr_console

__all__ = ["app"]

app = typer.Typer(help="Get, prepare and split data sets.", no_args_is_help=True, rich_markup_mode="rich")

MONTGOMERY_URL = "https://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip"
NUCLEI_URL = "https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip"


@app.command("montgomery")
def montgomery(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the archive and the X-rays.")],
    url: Annotated[str, typer.Option(help="Address of the archive, for mirrors.")] = MONTGOMERY_URL,
    sha256: Annotated[str | None, typer.Option(help="Insist on this SHA-256 of the archive.")] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Also write 8-bit images/ and merged masks/ of --size.")
    ] = False,
    size: Annotated[int, typer.Option(min=8, help="Height and width of the prepared files.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Download and unpack the Montgomery chest X-rays with lung masks (about 617 MB, public).

    Run it again after a break: it goes on where it stopped.

    \\b
    Examples:
      seg-bench data montgomery --out data/montgomery
      seg-bench data montgomery --out data/montgomery --prepare
      seg-bench data montgomery --out data/montgomery \\
        --url https://mirror.example/NLM-MontgomeryCXRSet.zip
    """
    from seg_bench.data.acquire import acquire_montgomery

    with progress_bar() as bar:
        acquired = acquire_montgomery(
            out, url, sha256=sha256, prepare_size_hw=(size, size) if prepare else None, bar=bar
        )
    if acquired.changed_from:
        stderr_console().print(
            f"[yellow]warning:[/] the archive has SHA-256 {acquired.sha256}, at the first download it was "
            f"{acquired.changed_from}: it changed at its source"
        )
    if as_json:
        typer.echo(json.dumps(acquired.as_dict()))
    else:
        typer.echo(f"{acquired.samples} X-rays in {acquired.folder}")
        if acquired.prepared:
            typer.echo(f"prepared at {size}x{size} in {acquired.prepared}")


@app.command("nuclei")
def nuclei(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, new or empty.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the nuclei; nothing is downloaded then.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Address of the archive, for mirrors.", show_default="the Broad Institute's"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Get images of nuclei with three classes: background, nucleus, border (CC0).

    The images are those of the Data Science Bowl 2018 (BBBC038, about 80 MB);
    the archive is kept in edgeseg's cache folder.
    Border are the pixels of a nucleus from which the background or another
    nucleus is at most 2 rows and columns away: without them nuclei do not touch.

    \b
    Examples:
      seg-bench data nuclei --out data/nuclei_classes
      seg-bench data nuclei --from data/nuclei --out data/nuclei_classes
    """
    from seg_bench.data.acquire import acquire_nuclei_classes
    from seg_bench.data.nuclei_classes import NUCLEI_CLASSES
    from seg_runtime.errors import BadInputError

    if source and url:
        raise BadInputError("--from takes a folder that is there and --url an archive: give one of them")
    with progress_bar() as bar:
        count = acquire_nuclei_classes(out, source or url or NUCLEI_URL, bar=bar)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "images": count, "classes": NUCLEI_CLASSES}))
    else:
        typer.echo(f"{count} images in {out}; classes: {', '.join(NUCLEI_CLASSES)}")


@app.command("split")
def split(
    data: Annotated[Path, typer.Argument(help="Folder with the Montgomery X-rays, either layout.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Split file to write (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Of the random order.")] = 0,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of validation samples.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of test samples.")] = 0.2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Split X-rays into train, val and test, normal and tuberculosis in equal proportions.

    \\b
    Examples:
      seg-bench data split data/montgomery --out split.json
      seg-bench data split data/montgomery --out split.json --seed 7 --test 0.3
    """
    from seg_bench.data.montgomery import finding, load_montgomery
    from seg_bench.data.splits import make_split, save_split

    names = [sample.name for sample in load_montgomery(data)]
    made = make_split(
        names, data_set="montgomery", seed=seed, val_fraction=val, test_fraction=test, stratum=finding
    )
    save_split(made, out)
    counts = {"train": len(made.train), "val": len(made.val), "test": len(made.test)}
    if as_json:
        typer.echo(json.dumps({"split": str(out), **counts}))
    else:
        typer.echo(f"{out}: {counts['train']} train, {counts['val']} val, {counts['test']} test")
