"""`segdeploy gate`, and the gates of `segdeploy benchmark`, through the real command line."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from segdeploy.benchmark.result import parse_result
from segdeploy.cli import main

SLOW = {"torch eager": 20.0, "torch channels_last": 16.0, "onnxruntime": 10.0, "onnxruntime int8": 30.0}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """A command in `tmp_path`; exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words)])
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return call


@pytest.fixture
def save(tmp_path):
    """Write a result as a report.json in a folder of that name."""

    def write(result, name="report"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "report.json").write_text(result.model_dump_json())

    return write


GATES = (
    "--gate",
    "miou_drop<=0.003",
    "--gate",
    "boundary_drop<=0.03",
    "--gate",
    "p99_ms<=25",
    "--gate",
    "speedup>=1.2",
)


def test_gates_that_are_kept(run, save, made):
    save(made())
    code, out, err = run("gate", "report", *GATES)
    assert (code, err) == (0, "")
    assert "gates: Passed: all 8 gates kept" in out
    assert run("gate", "report/report.json", *GATES)[0] == 0


@pytest.mark.parametrize(
    ("plant", "broken"),
    [
        (lambda made, labels: made(SLOW), {"p99_ms<=25", "speedup>=1.2"}),
        (lambda made, labels: made(maps={"onnxruntime int8": labels() // 2}), {GATES[1], GATES[3]}),
        (lambda made, labels: made(maps={"onnxruntime int8": labels(1)}), {"boundary_drop<=0.03"}),
        (lambda made, labels: made({**SLOW, "onnxruntime int8": None}), {g for g in GATES if g != "--gate"}),
    ],
    ids=["slow", "inaccurate", "shifted", "crashed"],
)  # fmt: skip
def test_planted_faults_end_with_exit_code_3(run, save, made, labels, plant, broken):
    save(plant(made, labels))
    gates = ("--gate", "miou_drop<=0.02", *GATES[2:]) if broken == {"boundary_drop<=0.03"} else GATES
    code, _, err = run("gate", "report", *gates, "--junit", "gates.xml", "--summary", "summary.md")
    head, *lines = err.splitlines()
    assert code == 3
    assert head == f"segdeploy: {len(broken)} of 8 gates not kept:"
    assert len(lines) == len(broken)
    assert {line.partition(": ")[0] for line in lines} <= {
        "  onnxruntime int8", "  onnxruntime int8, batch 1, 1 thread, 200x200"
    }  # fmt: skip
    assert {g.partition("<")[0].partition(">")[0] for g in broken} == {line.split(": ")[1].split()[0] for line in lines}
    cases = ET.parse("gates.xml").getroot()[0].findall("testcase")  # both were written all the same
    assert {c.get("name").partition(":")[0] for c in cases if len(c)} == broken
    assert Path("summary.md").read_text().startswith(f"### Not passed: {len(broken)} of 8 gates not kept\n")


def test_a_report_without_a_row_that_ran_ends_with_exit_code_3(run, save, made):
    save(made(dict.fromkeys(SLOW)))
    code, _, err = run("gate", "report", "--compare", "report", "--summary", "summary.md")
    assert (code, err) == (3, "segdeploy: no row could be measured: every row failed, for the reasons in the report\n")
    assert Path("summary.md").exists()


def test_gates_from_a_file(run, save, made, tmp_path):
    save(made())
    (tmp_path / "gates.yaml").write_text("gates:\n  - p99_ms[precision=int8,batch=1]<=25\n  - miou_drop<=0.003\n")
    code, out, _ = run("gate", "report", "--gates", "gates.yaml", "--gate", "miou_drop<=0.003")
    assert code == 0
    assert "all 3 gates kept" in out  # the one that stands twice counts once
    (tmp_path / "gates.yaml").write_text("- p99_ms[precision=int8,batch=1]<=1\n")
    assert run("gate", "report", "--gates", "gates.yaml")[0] == 3


def test_compare_and_a_gate_on_it(run, save, made):
    save(made(seed=2), "old")
    save(made({**SLOW, "onnxruntime int8": 6.6}, seed=1))
    code, out, err = run("gate", "report", "--compare", "old", "--gate", "slower_rows==0")
    assert code == 3
    assert "slower: onnxruntime int8, batch 1, 1 thread, 200x200: p50 5.9" in out
    assert "all rows: slower_rows is 1 (onnxruntime int8, batch 1, 1 thread, 200x200), expected == 0" in err
    save(made(seed=1))
    assert run("gate", "report", "--compare", "old/report.json", "--gate", "slower_rows==0")[0] == 0


def test_the_outcome_is_written_on_request(run, save, made, tmp_path):
    save(made(seed=2), "old")
    save(made(seed=1))
    before = (tmp_path / "report" / "report.json").read_bytes()
    run("gate", "report", "--gate", "p99_ms<=1", "--compare", "old")
    assert (tmp_path / "report" / "report.json").read_bytes() == before
    assert run("gate", "report", "--gate", "p99_ms<=1", "--compare", "old", "-o", "judged")[0] == 3
    judged = parse_result((tmp_path / "judged" / "report.json").read_bytes(), "judged")
    assert [c.passed for c in judged.gates] == [False, False]
    assert judged.comparison.against == "old"
    # It speaks for itself from now on, and can be held to something else.
    assert run("gate", "judged")[0] == 3
    assert run("gate", "judged", "--junit", "again.xml")[0] == 3
    assert len(ET.parse("again.xml").getroot()[0].findall("testcase")) == 2
    assert run("gate", "judged", "--gate", "slower_rows==0")[0] == 0


def test_a_page_of_github_is_added_to(run, save, made, monkeypatch, tmp_path):
    save(made())
    for _ in range(2):
        run("gate", "report", "--gate", "miou>=0", "--summary", "summary.md")
    assert (tmp_path / "summary.md").read_text().count("### Passed") == 1
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    for _ in range(2):
        run("gate", "report", "--gate", "miou>=0", "--summary", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text().count("### Passed") == 2
    run("gate", "report", "--gate", "miou>=0", "--summary", "summary.md")
    assert (tmp_path / "summary.md").read_text().count("### Passed") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report"], "expected --gate, --gates or --compare"),
        (["report", "--junit", "gates.xml"], "--junit: there is no gate to report; give --gate or --gates"),
        (["report", "--gate", "p99<=1"], "--gate 'p99<=1': no metric is named 'p99'; did you mean 'p99_ms'?"),
        (["report", "--gate", "p50_change<=1"], "gate p50_change<=1: needs an older report, see --compare"),
        (["report", "--gates", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (["none", "--gate", "miou>=0"], "none: expected the report.json of a benchmark: No such file or directory"),
        (["folder", "--gate", "miou>=0"], "folder/report.json: expected the report.json of a benchmark: No such file"),
        (["report", "--compare", "none.json"], "none.json: expected the report.json of a benchmark: No such file"),
        (["report", "--compare", "one.json"], "one.json: expected a report of schema 2, found schema 1; measure again"),
        (
            ["report", "--compare", "torn.json"],
            "torn.json: not a report of segdeploy benchmark: top: Invalid JSON: EOF",
        ),
        (["report", "--compare", "list.json"], "list.json: not a report of segdeploy benchmark: top: Input should be"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_a_user_gets_wrong(run, save, made, tmp_path, words, said):
    save(made())
    (tmp_path / "folder").mkdir()
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (tmp_path / "one.json").write_text(json.dumps({**report, "schema_version": 1, "rows": [{"name": "a"}]}))
    (tmp_path / "torn.json").write_text(json.dumps(report)[:-100])
    (tmp_path / "list.json").write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("gate", *words)
    assert code == 2
    assert out == ""
    assert err.startswith(f"segdeploy: {said}")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_list_of_metrics(run):
    code, out, _ = run("gate", "--metrics")
    assert code == 0
    assert any(line.split()[:4] == ["miou_drop", "fraction", "<=", "mean"] for line in out.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gate", "p99_mss<=1"], "--gate 'p99_mss<=1': no metric is named 'p99_mss'; did you mean 'p99_ms'?"),
        (["--gate", "p99_ms[batch=8]<=1"], "gate p99_ms[batch=8]<=1: no row will have batch '8'; known: 1, 4"),
        (["--gate", "p99_ms[backend=torhc]<=1"], "no row will have backend 'torhc'; did you mean 'torch'?"),
        (["--gate", "slower_rows==0"], "gate slower_rows==0: needs an older report, see --compare"),
        (["--compare", "none.json"], "none.json: expected the report.json of a benchmark: No such file or directory"),
        (["--junit", "gates.xml"], "--junit: there is no gate to report"),
    ],
)
def test_a_benchmark_refuses_before_it_measures(run, tiny_bundle, tiny_table, tmp_path, words, said):
    code, _, err = run("benchmark", tiny_bundle, "--dataset", tiny_table, *words)
    assert code == 2
    assert said in err
    assert "checking the table" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_is_held_to_its_gates(run, tiny_bundle, tiny_table, tmp_path):
    (tmp_path / "rows.csv").write_text("".join(tiny_table.read_text().splitlines(keepends=True)[:4]))
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(tiny_table.parent / name)
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    about = json.loads((bundle / "bundle.json").read_text())
    # From the configuration that the model was trained with; the second is about a row that is not asked for.
    about["benchmark"]["gates"] = ["p99_ms<=60000", "p99_ms[backend=torch]<=60000"]
    (bundle / "bundle.json").write_text(json.dumps(about))
    words = ("benchmark", bundle, "--dataset", "rows.csv", "--backends", "onnxruntime", "--batches", "1")
    words += ("--rounds", "2", "--seconds", "0", "--threads", "1", "--pictures", "0")
    code, out, err = run(*words, "--gate", "speedup>=0", "--junit", "gates.xml")
    assert code == 3
    said = "speedup is not known: it needs a row of torch to compare with"
    head, torch, ours = err.splitlines()[-3:]
    assert head == "segdeploy: 2 of 3 gates not kept:"
    assert "p99_ms[backend=torch]<=60000 selects no row" in torch
    assert ours == f"  onnxruntime, batch 1, 1 thread, 96x64: {said}"
    assert "report: report/report.html" in out  # it was written before the command failed
    assert "before you quote this: There are too few rounds for the intervals to mean much.\n" in out
    assert len(ET.parse("gates.xml").getroot().findall(".//failure")) == 2
    result = parse_result(Path("report/report.json").read_bytes(), "report")
    assert [(c.metric, c.passed) for c in result.gates] == [("p99_ms", True), ("p99_ms", False), ("speedup", False)]
