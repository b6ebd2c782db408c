"""Gates as JUnit XML, which every CI reads: a test case for each gate and row.

What is written keeps the schema of Ant's JUnit task (github.com/windyroad/JUnit-Schema), the strictest of those in use.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from segdeploy.benchmark.result import BenchmarkResult

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def to_junit(result: BenchmarkResult) -> str:
    """The result's gates as a document."""
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root,
        "testsuite",
        id="0",
        name="segdeploy benchmark",
        package="segdeploy",
        timestamp=result.created[:19],  # without a zone; it is UTC
        hostname="localhost",  # a report that travels names no machine
        tests=str(len(result.gates)),
        failures=str(sum(not check.passed for check in result.gates)),
        errors="0",
        time="0",
    )
    properties = ET.SubElement(suite, "properties")
    known = {
        "model": result.model,
        "table": result.table,
        "data_sha256": result.data_sha256,
        "cpu": str(result.machine.get("cpu")),
        "command": result.command,
    }
    for name, value in known.items():
        ET.SubElement(properties, "property", name=name, value=_clean(value))
    for check in result.gates:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"benchmark.{check.metric}",
            name=_clean(f"{check.gate}: {check.row}"),
            time="0",
        )
        if not check.passed:
            ET.SubElement(case, "failure", type="gate", message=_clean(check.message)).text = _clean(check.message)
    ET.SubElement(suite, "system-out").text = _clean("\n".join(check.message for check in result.gates))
    ET.SubElement(suite, "system-err")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
