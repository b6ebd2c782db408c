import html
import re

from segdeploy.benchmark.compare import compare
from segdeploy.benchmark.gates import hold
from segdeploy.benchmark.summary import change_lines, gates_line, to_summary
from segdeploy.config.gates import parse_gate


def told(result, *texts):
    result = result.model_copy(update={"gates": hold([parse_gate(t) for t in texts], result)})
    return result, to_summary(result)


def tables(text):
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()] for table in found]


def test_the_first_line_is_the_outcome(made):
    assert told(made(), "p99_ms<=8", "speedup>=1.2")[1].startswith("### Not passed: 1 of 4 gates not kept\n")
    assert told(made(), "speedup>=1.2")[1].startswith("### Passed: all 2 gates kept\n")
    assert told(made(), "failed_rows==0")[1].startswith("### Passed: 1 gate kept\n")
    assert told(made())[1].startswith("### Benchmark without gates\n")
    assert gates_line(()) == "Benchmark without gates"


def test_broken_gates_stand_in_the_open(made):
    result, text = told(made(), "p99_ms<=8", "speedup>=1.2")
    lines = text.splitlines()
    (broken,) = [line for line in lines if line.startswith("- not kept: ")]
    assert broken == f"- not kept: `p99_ms<=8`: {html.escape(result.gates[0].message)}"
    assert lines.index(broken) < lines.index("<details><summary>Gates that were kept</summary>")
    assert text.count("speedup&gt;=1.2") == 0
    assert len([line for line in lines if line.startswith("- `speedup>=1.2`: onnxruntime")]) == 2


def test_one_line_for_each_row(made):
    result, text = told(made({"torch eager": 20.0, "onnxruntime": 10.0, "onnxruntime int8": None}))
    (table,) = tables(text)
    assert len(table) == 2 + 3
    assert {len(line) for line in table} == {7}
    _, quick, failed = table[2:]
    assert quick[0].strip() == "onnxruntime, batch 1, 1 thread, 200x200"
    latency = result.rows[1].latency
    assert [float(quick[1]), float(quick[2])] == [round(latency.p50, 2), round(latency.p99, 2)]
    assert quick[6].strip() == "100"
    assert [c.strip() for c in failed[1:3]] == ["failed", "the engine crashed"]


def test_what_changed(made):
    new, old = made({"torch eager": 20.0, "onnxruntime": 10.8, "new|row": 5.0}, seed=1), made(seed=2, rounds=20)
    _, text = told(new.model_copy(update={"comparison": compare(new, old, "main/report.json")}))
    assert "**Since main/report.json** (2026-02-03T10:11:12+00:00): 1 row slower: onnxruntime, batch 1" in text
    assert "\n- rounds: 20, now 30\n" in text
    changes, rows = tables(text)
    assert [line[1].strip() for line in changes[2:]] == ["no measurable change", "slower", "new", "gone"]
    assert {len(line) for line in changes} == {3}
    assert len(rows) == 2 + 3


def test_rows_of_which_the_same_is_said_share_a_line(made):
    new = made(seed=1, machine={"cpu": "Other"}, batches=(1, 4))
    lines = change_lines(compare(new, made(seed=2, batches=(1,)), "old.json"))
    assert [(rows, verdict) for rows, verdict, _ in lines] == [
        ("torch eager, batch 1, 1 thread, 200x200 and 3 more", "not comparable"),
        ("torch eager, batch 4, 1 thread, 200x200 and 3 more", "new"),
    ]


def test_cautions_are_folded(made):
    text = told(made(notes=("the machine was *busy*",)))[1]
    assert "\n- the machine was \\*busy\\*\n" in text.partition("<summary>Before you quote these numbers</summary>")[2]


def test_text_is_taken_literally(made, change):
    result = change(made(), "onnxruntime", status="failed", latency=None, reason="<script>\n|a_b| `c` *d*")
    text = told(result.model_copy(update={"model": "<img>"}), "p99_ms<=80")[1]
    assert "<script>" not in text
    assert "<img>" not in text
    assert r"&lt;script&gt; \|a_b\| \`c\` \*d\*" in text
    assert {len(line) for line in tables(text)[0]} == {7}
