import pytest

from segdeploy.config import config_from_dict, parse_config
from segdeploy.config.gate_metrics import METRICS, metrics_table
from segdeploy.config.gates import parse_gate, parse_gates, read_gates
from segdeploy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "metric", "selector", "operator", "limit"),
    [
        ("miou_drop<=0.003", "miou_drop", (), "<=", 0.003),
        (" p99_ms <= 25 ", "p99_ms", (), "<=", 25.0),
        ("speedup>=1.5", "speedup", (), ">=", 1.5),
        ("miou_change>=-2e-3", "miou_change", (), ">=", -0.002),
        ("failed_rows==0", "failed_rows", (), "==", 0.0),
        ("agreement>.99", "agreement", (), ">", 0.99),
        (
            "p99_ms[backend=onnxruntime, precision = int8,batch=01]<25",
            "p99_ms",
            (("backend", "onnxruntime"), ("precision", "int8"), ("batch", "1")),
            "<",
            25.0,
        ),
        ("p99_ms[name=torch channels_last]<=9", "p99_ms", (("name", "torch channels_last"),), "<=", 9.0),
    ],
)
def test_what_a_gate_says(text, metric, selector, operator, limit):
    gate = parse_gate(text)
    assert (gate.metric.name, gate.selector, gate.operator, gate.limit) == (metric, selector, operator, limit)
    assert parse_gate(gate.text) == gate  # as it is written into reports


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p99_mss<=25", "no metric is named 'p99_mss'; did you mean 'p99_ms'?"),
        ("latency<=25", "no metric is named 'latency'; `segdeploy gate --metrics` lists all"),
        ("p99_ms=<25", "no operator is written '=<'; did you mean '<='?"),
        ("p99_ms\u226425", "no operator is written '\u2264'; did you mean '<='?"),
        ("speedup=1.5", "no operator is written '='; did you mean '>='?"),
        ("p99_ms!=25", "no operator is written '!='; p99_ms takes <=, <, =="),
        ("p99_ms>=25", "of p99_ms lower is better, so its limit is written <=: p99_ms<=25"),
        ("speedup<1.5", "of speedup higher is better, so its limit is written >=: speedup>=1.5"),
        ("miou_drop<=0.3%", "expected a plain number behind miou_drop (a fraction: 0.01 is one percent), got '0.3%'"),
        ("speedup>=1.5x", "expected a plain number behind speedup (times as fast), got '1.5x'"),
        ("p99_ms<=25ms", "expected a plain number behind p99_ms (in ms), got '25ms'"),
        ("p99_ms<=nan", "got 'nan'"),
        ("p99_ms<=1e999", "got '1e999'"),
        ("p99_ms<=1_0", "got '1_0'"),
        ("p99_ms<=", "got ''"),
        ("p99_ms[btach=1]<=2", "rows have no 'btach' to select by; did you mean 'batch'?"),
        ("p99_ms[batch]<=2", "expected KEY=VALUE in the selector, such as batch=1, got 'batch'"),
        ("p99_ms[]<=2", "expected KEY=VALUE in the selector, such as batch=1, got ''"),
        ("p99_ms[batch=one]<=2", "batch: expected a whole number, got 'one'"),
        ("p99_ms[batch=1,batch=4]<=2", "batch stands twice in the selector; write a gate for each value"),
        ("p99_ms[batch=1<=2", "expected METRIC<=NUMBER or METRIC[KEY=VALUE,...]>=NUMBER"),
        ("p99_ms", "expected METRIC<=NUMBER"),
        ("", "expected METRIC<=NUMBER"),
    ],
)
def test_what_is_no_gate(text, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (pydantic takes nothing else)
        parse_gate(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [("<=", True, True, False), ("<", True, False, False), ("==", False, True, False)],
)
def test_limits_from_above(operator, below, at, above):
    gate = parse_gate(f"p99_ms{operator}25")
    assert [gate.kept(v) for v in (24.9, 25.0, 25.1)] == [below, at, above]
    assert not gate.kept(float("nan"))


@pytest.mark.parametrize(("operator", "below", "at", "above"), [(">=", False, True, True), (">", False, False, True)])
def test_limits_from_below(operator, below, at, above):
    gate = parse_gate(f"speedup{operator}2")
    assert [gate.kept(v) for v in (1.9, 2.0, 2.1)] == [below, at, above]
    assert not gate.kept(float("nan"))


def test_every_mistake_has_its_line():
    with pytest.raises(ConfigError) as caught:
        parse_gates(["p9_ms<=1", "p99_ms<=1", "speedup<=2"], "--gate")
    first, second = str(caught.value).splitlines()
    assert first.startswith("--gate 'p9_ms<=1': no metric is named")
    assert second.startswith("--gate 'speedup<=2': of speedup higher is better")
    assert [g.text for g in parse_gates(["p99_ms <= 1", "p99_ms<=1", "p90_ms<=1"], "x")] == ["p99_ms<=1", "p90_ms<=1"]


def test_a_file_of_gates(tmp_path):
    path = tmp_path / "gates.yaml"
    path.write_text("# limits\ngates:\n  - miou_drop<=0.003\n  - p99_ms[backend=onnxruntime,batch=1]<=25\n")
    assert [g.text for g in read_gates(path)] == ["miou_drop<=0.003", "p99_ms[backend=onnxruntime,batch=1]<=25"]
    path.write_text("- miou_drop<=0.003\n")
    assert [g.text for g in read_gates(path)] == ["miou_drop<=0.003"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gates:\n  - miou<=0.5\n  - p99_mss<=1\n", ":2: gates[0]: 'miou<=0.5': of miou|:3: gates[1]: 'p99_mss<=1'"),
        ("- 3\n", ":1: [0]: expected METRIC<=NUMBER"),
        ("- {p99_ms: 25}\n", ":1: [0]: expected METRIC<=NUMBER"),
        ("gate: [miou>=0.5]\n", ":1: gate: unknown key; did you mean 'gates'?"),
        ("gates: miou>=0.5\n", ": expected a list of gates"),
        ("[]", ": expected a list of gates"),
        ("", ": expected a list of gates"),
        ("a: [", ":1: not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_gates(tmp_path, text, said):
    path = tmp_path / "gates.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_gates(path)
    for line, part in zip(str(caught.value).splitlines(), said.split("|"), strict=False):
        assert line.startswith(f"{path}{part}")
    assert len(str(caught.value).splitlines()) >= len(said.split("|"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_gates(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"- \xff")
    with pytest.raises(ConfigError, match="expected UTF-8 text"):
        read_gates(tmp_path / "latin.yaml")


def test_gates_in_a_configuration(tiny_config):
    config = parse_config(f"{tiny_config}\nbenchmark:\n  gates: ['miou_drop <= 0.003']\n")
    assert config.benchmark.gates == ("miou_drop<=0.003",)
    again = config_from_dict(config.model_dump(mode="json"))
    assert again.benchmark.gates == config.benchmark.gates
    line = tiny_config.count("\n") + 5
    with pytest.raises(ConfigError, match=rf"config:{line}: benchmark\.gates\[1\]: no metric is named 'p99'; did you"):
        parse_config(f"{tiny_config}\nbenchmark:\n  gates:\n    - miou>=0.5\n    - p99<=1\n")


def test_the_table_says_what_each_metric_is():
    rows = metrics_table()
    assert [row[0] for row in rows] == list(METRICS)
    for (name, unit, sign, about), metric in zip(rows, METRICS.values(), strict=True):
        assert unit in ("fraction", "ms", "s", "MiB", "images/s", "x", "rows", "rounds")
        assert sign == ("<=" if metric.better == "lower" else ">=")
        assert about
        assert parse_gate(f"{name}{sign}1").metric is metric
