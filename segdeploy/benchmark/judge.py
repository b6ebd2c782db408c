"""What is done with a result once it is measured: compared with an older one, held against gates, told to a CI."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.benchmark.compare import compare
from segdeploy.benchmark.gates import hold, raise_broken
from segdeploy.benchmark.junit import to_junit
from segdeploy.benchmark.summary import to_summary
from segdeploy.errors import GateError
from segdeploy.files import write_text

if TYPE_CHECKING:
    from segdeploy.benchmark.result import BenchmarkResult
    from segdeploy.config.gates import Gate


@dataclass(frozen=True, slots=True)
class Judge:
    """Gates, the older report with its name, and the files that a CI reads."""

    gates: tuple[Gate, ...] = ()
    older: BenchmarkResult | None = None
    against: str = ""
    junit: Path | None = None
    summary: Path | None = None

    def judge(self, result: BenchmarkResult) -> BenchmarkResult:
        """The result with its comparison and its gates; those that it has stay where there are no new ones."""
        if self.older is not None:
            result = result.model_copy(update={"comparison": compare(result, self.older, self.against)})
        if self.gates:
            result = result.model_copy(update={"gates": hold(self.gates, result)})
        return result

    def tell(self, result: BenchmarkResult) -> None:
        """Write what a CI reads of a judged result.

        Raises:
            GateError: a gate was not kept, or every row failed; everything has been written then.
        """
        if self.junit is not None:
            write_text(self.junit, to_junit(result))
        if self.summary is not None:
            write_summary(self.summary, to_summary(result))
        raise_broken(result.gates)
        if not any(row.status == "ok" for row in result.rows):
            raise GateError("no row could be measured: every row failed, for the reasons in the report")


def write_summary(path: Path, text: str) -> None:
    """Write Markdown; append it where `path` is the page of a GitHub step, to which every command adds its part."""
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page and path.resolve() == Path(page).resolve():
        with path.open("a", encoding="utf-8") as handle:
            handle.write(f"{text}\n")
    else:
        write_text(path, text)
