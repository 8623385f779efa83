"""The folder that holds all that a device gave: one file of records per row, and the pages made of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from seg_bench.doctor.facts import Facts
from seg_bench.doctor.findings import examine
from seg_bench.doctor.screen import to_json_text
from seg_bench.record_files import read_run, write_run
from seg_bench.records import Run
from seg_bench.report.html_page import to_html
from seg_bench.report.save import save_report
from seg_bench.reproduce.catalogue import ROWS
from seg_bench.reproduce.table import to_markdown_table
from seg_runtime.errors import BadInputError

__all__ = ["ResultFolder"]


class ResultFolder:
    """`records/ROW.json`, `table.md`, `report.html`, `environment.json` and `log.txt` below one folder.

    Models, weights and drawn images lie below `work/`, which may be removed. `training/ROW/` says how
    a row was trained.

    Args:
        path: the folder; created when missing.

    Raises:
        BadInputError: it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = path / "records"
        self.work = path / "work"
        try:
            self.records.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"cannot write to '{path}': {error.strerror}; give another --out") from error

    def measured(self) -> set[str]:
        """Keys of the rows that have records."""
        return {key for key in ROWS if self._path(key).is_file()}

    def random(self) -> set[str]:
        """Keys of the rows whose records are of random weights."""
        records = {key: read_run(self._path(key)).records for key in self.measured()}
        return {key for key, found in records.items() if found[0].model.weights == "random"}

    def runs(self) -> list[Run]:
        """The records, in the order of the table."""
        return [read_run(self._path(key)) for key in ROWS if self._path(key).is_file()]

    def keep(self, key: str, run: Run) -> None:
        """Write the records of a row, and the pages of all rows."""
        write_run(run, self._path(key))
        self.write_pages()

    def write_pages(self, missing: Sequence[str] = ()) -> None:
        """`table.md` and `report.html` of what there is, and a line for each row that is missing."""
        runs = self.runs()
        if runs:
            save_report(to_markdown_table(runs, missing), self.path / "table.md")
            save_report(to_html(runs, "Segmentation models on one device"), self.path / "report.html")

    def write_environment(self, facts: Facts) -> None:
        save_report(to_json_text(facts, examine(facts)) + "\n", self.path / "environment.json")

    def training(self, key: str) -> Path:
        """Folder that says how a row was trained."""
        return self.path / "training" / key

    def log(self, line: str) -> None:
        """Add a line with the time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(timezone.utc).isoformat(timespec='seconds')} {line}\n")

    def _path(self, key: str) -> Path:
        return self.records / f"{key}.json"
