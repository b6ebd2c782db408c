import re
import xml.etree.ElementTree as ET

from segdeploy.benchmark.gates import hold
from segdeploy.benchmark.junit import to_junit
from segdeploy.config.gates import parse_gate

NASTY = 'x\x00\x1b\ud800 <b>"&'


def document(result, *texts):
    result = result.model_copy(update={"gates": hold([parse_gate(t) for t in texts], result)})
    return result, ET.fromstring(to_junit(result).encode())


def test_a_case_for_each_gate_and_row(made):
    result, root = document(made(), "p99_ms<=8", "speedup>=1.2", "failed_rows==0")
    assert root.tag == "testsuites"
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "1", "0")
    cases = suite.findall("testcase")
    assert [c.get("name") for c in cases] == [f"{c.gate}: {c.row}" for c in result.gates]
    assert cases[0].get("name") == "p99_ms<=8: onnxruntime, batch 1, 1 thread, 200x200"
    assert [c.get("classname") for c in cases] == [
        "benchmark.p99_ms", "benchmark.p99_ms", "benchmark.speedup", "benchmark.speedup", "benchmark.failed_rows"
    ]  # fmt: skip
    failures = [c.findall("failure") for c in cases]
    assert [len(f) for f in failures] == [1, 0, 0, 0, 0]
    assert failures[0][0].get("message") == failures[0][0].text == result.gates[0].message
    known = {p.get("name"): p.get("value") for p in suite.find("properties")}
    assert known["cpu"] == "Example CPU"
    assert known["data_sha256"] == result.data_sha256


def test_what_the_schema_of_ant_asks_for(made):
    _, root = document(made(), "p99_ms<=8")
    (suite,) = root
    assert [c.tag for c in suite] == ["properties", "testcase", "testcase", "system-out", "system-err"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    assert {"id", "name", "package", "hostname", "tests", "failures", "errors", "time"} <= set(suite.attrib)
    for case in suite.findall("testcase"):
        assert set(case.attrib) == {"name", "classname", "time"}
        assert [(f.tag, f.get("type")) for f in case] in ([], [("failure", "gate")])


def test_text_that_xml_cannot_hold(made, change):
    result = change(made(), "onnxruntime", status="failed", reason=NASTY)
    _, root = document(result.model_copy(update={"model": NASTY, "command": NASTY}), "p99_ms<=80")
    said = root[0].find("testcase/failure").get("message")
    assert said.endswith('the row failed: x\ufffd\ufffd\ufffd <b>"&')
    assert root[0].find("properties/property[@name='model']").get("value") == 'x\ufffd\ufffd\ufffd <b>"&'
