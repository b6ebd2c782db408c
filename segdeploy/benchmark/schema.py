"""The JSON Schema of report.json, published beside this file: `python -m segdeploy.benchmark.schema` prints it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from segdeploy.benchmark.result import BenchmarkResult

PUBLISHED = Path(__file__).with_name("report.schema.json")
"""The same as a file, for tools that want one; a test holds that it is current."""


def report_schema() -> dict[str, Any]:
    """Draft 2020-12; sentences are those of the code. Keys may come within a schema version, none goes or changes."""
    version = BenchmarkResult.model_fields["schema_version"].default
    schema = BenchmarkResult.model_json_schema(mode="serialization")
    about = {"title": f"report.json of segdeploy benchmark, schema {version}", "description": schema["description"]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:segdeploy:report:{version}"}
    return head | about | {k: v for k, v in schema.items() if k not in about}


def schema_text() -> str:
    """`report_schema` as the text of the published file."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
