"""Times one model on one server with NVIDIA's perf_analyzer and with our own client, in turns.

Run with `python -m microbench.perf_analyzer --out FILE`; docs/benchmark.md tells where the
program comes from. Concurrency 1 over gRPC, random images: what both call latency is from before a request
is put together until its answer is read.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError, EdgesegError
from seg_runtime.session import Session

__all__ = ["CrossCheck", "cross_check", "find_perf_analyzer", "parse_report"]

SCHEMA = "edgeseg-perf-analyzer/1"
_WARM_UP = 3
_INSTALL = (
    "python -m venv out/perf && out/perf/bin/pip install --no-deps tritonclient==2.51.0  "
    "and pass --perf-analyzer out/perf/bin/perf_analyzer"
)
_LIBRARIES = ("libb64.so.0d", "libcudart.so.12")


@dataclass(frozen=True)
class Report:
    """One measurement of perf_analyzer: answered requests, and latencies in milliseconds."""

    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Round:
    """Both clients, one after the other; `ours_ms` are raw samples."""

    perf_analyzer: Report
    ours_ms: tuple[float, ...]


@dataclass(frozen=True)
class CrossCheck:
    """Both clients on one server, with what is needed to repeat it.

    Attributes:
        program: what perf_analyzer says of its version.
        requests: per round and client.
        perf_analyzer_p50_ms, ours_p50_ms: medians of the p50 of the rounds.
        ratio: ours against perf_analyzer's, median over rounds.
    """

    schema: str
    command: str
    machine: Machine
    program: str
    model: str
    threads: int
    requests: int
    rounds: tuple[Round, ...]
    perf_analyzer_p50_ms: float
    ours_p50_ms: float
    ratio: float


def find_perf_analyzer(path: Path | None = None) -> Path:
    """The program that was named, or the one on PATH. Raises BadInputError that says how to get it."""
    found = path or (Path(on_path) if (on_path := shutil.which("perf_analyzer")) else None)
    if found is None or not os.access(found, os.X_OK) or found.is_dir():
        where = f"at {path}" if path else "on PATH"
        raise BadInputError(f"no perf_analyzer {where} that can be run: run  {_INSTALL}")
    return found.resolve()


def parse_report(text: str) -> Report:
    """Read what perf_analyzer prints for one level of concurrency. Raises BadInputError when it is none."""
    wanted = {"requests": r"^\s*Request count: (\d+)"}
    wanted |= {f"p{percent}": rf"^\s*p{percent} latency: (\d+) usec" for percent in (50, 90, 99)}
    found = {name: re.search(pattern, text, re.MULTILINE) for name, pattern in wanted.items()}
    values = {name: int(match[1]) for name, match in found.items() if match}
    if len(values) < len(wanted):
        missing = ", ".join(wanted.keys() - values.keys())
        raise BadInputError(f"perf_analyzer's report has no {missing}: it ends with {text.strip()[-200:]!r}")
    return Report(values["requests"], *(values[f"p{percent}"] / 1000 for percent in (50, 90, 99)))


def cross_check(
    program: Path,
    repo: Path,
    model: str,
    *,
    requests: int = 30,
    rounds: int = 6,
    threads: int = 1,
    command: str = "",
) -> CrossCheck:
    """Start a server and let both clients take turns; who goes first changes every round.

    Args:
        program: perf_analyzer.
        repo: model repository.
        model: a model with inputs of fixed shape, the batch axis apart.
        requests: per round and client.
        rounds: how often both have their turn.
        threads: of the server, per model.
        command: the command line, for the record.

    Raises:
        EdgesegError: the server or perf_analyzer fails.
    """
    from seg_runtime import connect
    from seg_runtime.server import ServerOptions, TritonServer

    options = ServerOptions(
        http_port=0, grpc_port=0, metrics_port=0, models=(model,), threads=threads, response_cache_mb=0
    )
    played = []
    with tempfile.TemporaryDirectory() as folder, TritonServer(repo, options) as server:
        environment = _environment(Path(folder))
        version = " ".join(_output([program, "--version"], environment).split())
        with connect(server.grpc_url, shared_memory=False) as session:
            feed = _feed(session, model)
            _ours_ms(session, model, feed, _WARM_UP)
            for turn in range(rounds):
                arguments = (program, server.grpc_url, model, requests, environment)
                theirs = _theirs(*arguments) if turn % 2 else None
                ours_ms = _ours_ms(session, model, feed, requests)
                played.append(Round(theirs or _theirs(*arguments), ours_ms))
    p50_ms = [statistics.median(each.ours_ms) for each in played]
    return CrossCheck(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        program=version,
        model=model,
        threads=threads,
        requests=requests,
        rounds=tuple(played),
        perf_analyzer_p50_ms=statistics.median(each.perf_analyzer.p50_ms for each in played),
        ours_p50_ms=statistics.median(p50_ms),
        ratio=statistics.median(
            ours / each.perf_analyzer.p50_ms for ours, each in zip(p50_ms, played, strict=True)
        ),
    )


def _theirs(program: Path, grpc_url: str, model: str, requests: int, environment: dict[str, str]) -> Report:
    command = [program, "-m", model, "-i", "grpc", "-u", grpc_url.removeprefix("grpc://")]
    command += ["--concurrency-range", "1", "--request-count", requests]
    return parse_report(_output(command, environment))


def _ours_ms(session: Session, model: str, feed: dict[str, NDArray[Any]], calls: int) -> tuple[float, ...]:
    spent_ms = []
    for _ in range(calls):
        start = time.perf_counter()
        session.infer(model, feed)
        spent_ms.append(1000 * (time.perf_counter() - start))
    return tuple(spent_ms)


def _feed(session: Session, model: str) -> dict[str, NDArray[Any]]:
    """Random bytes as the model takes them. Raises BadInputError for other inputs."""
    spec, generator = session.spec(model), np.random.default_rng(0)
    feed = {}
    for tensor in spec.inputs:
        shape = (1, *tensor.shape) if spec.max_batch_size else tensor.shape
        if tensor.dtype != "uint8" or min(shape) < 1:
            raise BadInputError(
                f"the input '{tensor.name}' of model '{model}' is no image of fixed size: "
                "choose a semantic model"
            )
        feed[tensor.name] = generator.integers(0, 256, shape, dtype=np.uint8)
    return feed


def _environment(folder: Path) -> dict[str, str]:
    """Variables that let the program find its libraries, which nvidia-pytriton brings under other names."""
    spec = find_spec("pytriton")
    brought = Path(spec.origin).parents[1] / "nvidia_pytriton.libs" if spec and spec.origin else None
    for name in _LIBRARIES:
        stem, _, version = name.partition(".so.")
        for library in sorted(brought.glob(f"{stem}-*.so.{version}*")) if brought else ():
            (folder / name).symlink_to(library)
            break
    search = filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH")))
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(search)}


def _output(command: list[Any], environment: dict[str, str]) -> str:
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise EdgesegError(f"perf_analyzer failed with exit code {done.returncode}: {' '.join(last)}")
    return done.stdout or done.stderr  # where its version goes


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def perf_analyzer(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repo: Annotated[Path, typer.Option(help="Model repository.")] = Path("triton_repo"),
    model: Annotated[str, typer.Option(help="Its model: a semantic one.")] = "unet_lung",
    program: Annotated[
        Path | None, typer.Option("--perf-analyzer", help="The program, when it is not on PATH.")
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests of each client per round.", min=1)] = 30,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 6,
    threads: Annotated[int, typer.Option(help="Threads of the model on the server.", min=1)] = 1,
) -> None:
    """Time a model on one server with NVIDIA's perf_analyzer and with our client, in turns.

    Examples:

        python -m microbench.perf_analyzer --out bench/results/perf_analyzer.json

        python -m microbench.perf_analyzer --perf-analyzer PATH --model unet --out check.json
    """
    command = shown_command(["python", "-m", "microbench.perf_analyzer", *sys.argv[1:]])
    found = find_perf_analyzer(program)
    result = cross_check(
        found, repo, model, requests=requests, rounds=rounds, threads=threads, command=command
    )
    write_json(out, result)
    typer.echo(
        f"p50 of {model}: perf_analyzer {result.perf_analyzer_p50_ms:.2f} ms, "
        f"ours {result.ours_p50_ms:.2f} ms, ratio {result.ratio:.3f}"
    )


if __name__ == "__main__":
    run_app(app)
