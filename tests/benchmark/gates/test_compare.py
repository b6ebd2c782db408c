import pytest

from segdeploy.benchmark.compare import NOISE, compare
from segdeploy.benchmark.gates import hold
from segdeploy.benchmark.numbers import number_of
from segdeploy.config.gates import parse_gate

TIMES = {"torch eager": 20.0, "torch channels_last": 16.0, "onnxruntime": 10.0, "onnxruntime int8": 6.0}


def verdicts(comparison):
    return {row.name: row.verdict for row in comparison.rows}


def of(comparison, name):
    (row,) = [r for r in comparison.rows if r.name == name]
    return row, {c.metric: c for c in row.changes}


def machine(result, **changes):
    return result.model_copy(update={"machine": {**result.machine, **changes}})


def test_runs_of_one_distribution_show_no_change(made):
    inside = total = 0
    for seed in range(12):
        found = compare(made(seed=seed), made(seed=100 + seed), "old.json")
        assert set(verdicts(found).values()) == {"no measurable change"}
        for row in found.rows:
            p50 = next(c for c in row.changes if c.metric == "p50_ms")
            inside, total = inside + (p50.low <= 0 <= p50.high), total + 1
    assert inside / total > 0.85  # 95 % are promised
    assert found.differences == found.times_differ == found.accuracy_differs == ()
    assert found.verdict == "4 rows without a measurable change of time. mIoU is the same."
    assert (found.against, found.created) == ("old.json", "2026-02-03T10:11:12+00:00")


def test_a_slower_and_a_faster_row(made):
    new = made({**TIMES, "onnxruntime": 10.8, "onnxruntime int8": 5.5}, seed=1)
    found = compare(new, made(seed=2), "old.json")
    assert verdicts(found) == {
        "torch eager": "no measurable change", "torch channels_last": "no measurable change",
        "onnxruntime": "slower", "onnxruntime int8": "faster",
    }  # fmt: skip
    row, changes = of(found, "onnxruntime")
    p50, speedup = changes["p50_ms"], changes["speedup"]
    assert p50.low < 0.08 < p50.high
    assert p50.change == pytest.approx(p50.new / p50.old - 1)
    assert p50.low < p50.change < p50.high
    assert (p50.old, p50.new) == tuple(
        next(r.latency.p50 for r in side.rows if r.name == "onnxruntime") for side in (made(seed=2), new)
    )
    assert speedup.low < 1 / 1.08 - 1 < speedup.high
    assert speedup.old == pytest.approx(1.6, rel=0.03)
    assert row.why.startswith(f"p50 {p50.old:.4g} -> {p50.new:.4g} ms, +")
    assert "speed-up over torch channels_last 1.59 -> 1.4" in row.why
    assert (
        "1 row slower: onnxruntime, batch 1, 1 thread, 200x200. 1 row faster: onnxruntime int8, batch 1"
        in found.verdict
    )


def test_what_is_shown_but_small_is_not_claimed(made):
    # A thousand rounds show a change of 1 % beyond doubt; two runs of one program differ by as much.
    new = made({"onnxruntime": 10.0 * (1 + NOISE / 2)}, rounds=1000)
    found = compare(new, made({"onnxruntime": 10.0}, seed=2, rounds=1000), "old.json")
    row, changes = of(found, "onnxruntime")
    assert changes["p50_ms"].low > 0
    assert row.verdict == "no measurable change"


def test_what_is_large_but_not_shown_is_not_claimed(made):
    found = compare(made({"onnxruntime": 10.4}, rounds=8), made({"onnxruntime": 10.0}, seed=2, rounds=8), "old.json")
    row, changes = of(found, "onnxruntime")
    assert changes["p50_ms"].low < NOISE < changes["p50_ms"].change
    assert row.verdict == "no measurable change"


@pytest.mark.parametrize(
    ("times", "name"),
    [
        ({"torch eager": 12.0, "torch channels_last": 16.0}, "torch eager"),
        ({"torch eager": 20.0, "torch channels_last": 16.0}, "torch channels_last"),
        ({"torch eager": 20.0, "torch compile": 5.0}, "torch eager"),  # compiled by who knows which compiler
        ({"torch compile": 5.0}, "torch compile"),
        ({"torch compile_amp": 5.0, "torch eager": 9.0}, "torch eager"),
    ],
)
def test_the_yardstick_is_the_older_baseline(made, times, name):
    times = {**times, "onnxruntime": 10.0}
    row, _ = of(compare(made(times, seed=1), made(times, seed=2), "old.json"), "onnxruntime")
    assert f"; speed-up over {name} " in row.why


def test_a_slow_machine_is_no_slow_row(made):
    found = compare(made(seed=1, drift=1.1), made(seed=2), "old.json")
    assert set(verdicts(found).values()) == {"no measurable change"}
    assert of(found, "torch eager")[0].why.endswith("so this is the machine's pace")
    row, changes = of(found, "onnxruntime")
    assert changes["p50_ms"].low > NOISE
    assert row.why.endswith("; against torch no change is shown")
    (drift,) = found.differences
    assert drift.startswith("torch's own rows moved though torch and the model are the same, so the machine itself has")
    assert "torch eager, batch 1, 1 thread, 200x200: +9.6% [" in drift


@pytest.mark.parametrize("other", [{"torch": "2.10.0", "onnxruntime": "1.32.0"}, {"onnxruntime": "1.32.0"}])
def test_another_torch_says_nothing_of_the_machine(made, other):
    found = compare(machine(made(seed=1, drift=1.1), packages=other), made(seed=2), "old.json")
    assert set(verdicts(found).values()) == {"slower"}
    assert found.differences == (f"torch: 2.9.0, now {other.get('torch', 'unknown')}",)
    assert "speedup" not in of(found, "onnxruntime")[1]


def test_another_model_says_nothing_of_the_machine(made):
    new = made(seed=1, drift=1.1, parameters=7, model="other: fpn on timm")
    found = compare(new, made(seed=2), "old.json")
    assert verdicts(found)["onnxruntime"] == "slower"
    assert found.differences == ("another model: street: fpn on timm, now other: fpn on timm",)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": "Other CPU"}, "another CPU: Example CPU, now Other CPU"),
        ({"cores": 4}, "another number of cores: 2, now 4"),
        ({"gpus": ["A, 8 MiB, 1.2"]}, "other GPUs: none, now A, 8 MiB"),
    ],
)
def test_times_of_another_machine_are_not_compared(made, changed, said):
    found = compare(machine(made(seed=1), **changed), made(seed=2), "old.json")
    assert found.times_differ == (said,)
    assert set(verdicts(found).values()) == {"not comparable"}
    row, changes = of(found, "onnxruntime")
    assert row.why == said
    for metric in ("p50_ms", "p99_ms", "engine_p50_ms", "load_s", "cold_s", "first_call_s"):
        change = changes[metric]
        assert change.old is not None
        assert change.new is not None
        assert (change.change, change.low, change.high) == (None, None, None)
    assert changes["size_mib"].change == changes["memory_mib"].change == changes["miou"].change == 0
    assert found.verdict == f"Times cannot be compared: {said}. mIoU is the same."


def test_rows_that_were_disturbed_or_ran_elsewhere_are_not_compared(made, change):
    old = made(seed=2)
    busy = compare(change(made(seed=1), "onnxruntime", disturbed=4), old, "old.json")
    assert verdicts(busy)["onnxruntime"] == "not comparable"
    assert of(busy, "onnxruntime")[0].why == "other work disturbed 4 of 30 rounds of the newer report"
    assert verdicts(busy)["onnxruntime int8"] == "no measurable change"
    assert (
        verdicts(compare(change(made(seed=1), "onnxruntime", disturbed=3), old, "o"))["onnxruntime"] != "not comparable"
    )
    before = compare(made(seed=1), change(old, "onnxruntime", disturbed=30), "old.json")
    assert of(before, "onnxruntime")[0].why == "other work disturbed 30 of 30 rounds of the older report"
    gpu = compare(change(made(seed=1), "onnxruntime", provider="CUDAExecutionProvider"), old, "old.json")
    assert of(gpu, "onnxruntime")[0].why == "ran on CPUExecutionProvider, now on CUDAExecutionProvider"


def test_a_disturbed_row_of_torch_is_no_yardstick(made, change):
    new = change(made(seed=1, drift=1.1), "torch channels_last", disturbed=30)
    assert "speed-up over torch eager" in of(compare(new, made(seed=2), "old.json"), "onnxruntime")[0].why


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data_sha256": "cd" * 32, "images": 9}, "other data: test.csv (1 images), now test.csv (9 images)"),
        ({"measured_at": "model"}, "counted at the mask's size, now at the model's"),
        ({"names": ("sky", "road", "van")}, "other classes"),
    ],
)
def test_scores_on_other_data_are_not_compared(made, changed, said):
    new = made(seed=1)
    if "names" in changed:
        classes = new.spec.classes.model_copy(update=changed)
        changed = {"spec": new.spec.model_copy(update={"classes": classes})}
    found = compare(new.model_copy(update=changed), made(seed=2), "old.json")
    assert found.accuracy_differs == (said,)
    row, changes = of(found, "onnxruntime")
    assert row.verdict == "no measurable change"  # times can be compared all the same
    assert [changes[m].change for m in ("miou", "boundary", "agreement")] == [None] * 3
    assert found.verdict.endswith(f"Scores cannot be compared: {said}.")


def test_scores_that_changed(made, labels):
    found = compare(made(seed=1, maps={"onnxruntime int8": labels(1)}), made(seed=2), "old.json")
    _, changes = of(found, "onnxruntime int8")
    assert changes["miou"].kind == "difference"
    assert changes["miou"].change == pytest.approx(-0.0197564, abs=1e-6)
    assert changes["boundary"].change < -0.1
    assert changes["agreement"].change == pytest.approx(-2 / 200)
    assert found.verdict.endswith("mIoU in points: onnxruntime int8 -1.98.")


def test_versions_and_rounds_are_told(made):
    new = machine(
        made(seed=1, rounds=20), python="3.12.1", packages={"onnxruntime": "1.33.0", "torch": "2.9.0", "x": "1"}
    )
    old = made(seed=2, backends={"quick": "acme-quick 2.5, torch 2.8.0"})
    found = compare(new.model_copy(update={"backends": {"quick": "acme-quick 2.6"}}), old, "old.json")
    assert found.differences == (
        "Python: 3.11.7, now 3.12.1", "acme-quick: 2.5, now 2.6", "onnxruntime: 1.32.0, now 1.33.0",
        "x: unknown, now 1", "rounds: 30, now 20",
    )  # fmt: skip
    assert set(verdicts(found).values()) == {"no measurable change"}


def test_another_driver_is_told_and_compared(made):
    new, old = (machine(made(seed=s), gpus=["A, 8 MiB, 1.2", f"B, 9 MiB, 1.{s}"]) for s in (1, 2))
    found = compare(new, old, "old.json")
    assert found.times_differ == ()
    assert found.differences == ("GPU driver: 1.2 and 1.2, now 1.2 and 1.1",)


def test_rows_that_came_went_and_failed(made):
    new = made({"torch eager": 20.0, "onnxruntime": None, "onnxruntime int8": 6.0, "quick": 5.0, "dead": None}, seed=1)
    old = made({"torch eager": 20.0, "onnxruntime": 10.0, "onnxruntime int8": None, "lost": 4.0, "dead": None}, seed=2)
    found = compare(new, old, "old.json")
    assert list(verdicts(found).items()) == [
        ("torch eager", "no measurable change"), ("onnxruntime", "fails now"), ("onnxruntime int8", "works again"),
        ("quick", "new"), ("dead", "failed in both"), ("lost", "gone"),
    ]  # fmt: skip
    assert of(found, "onnxruntime")[0].why == "failed: the engine crashed"
    assert "1 row gone: lost, batch 1, 1 thread, 200x200." in found.verdict


def test_a_row_is_another_at_another_batch_or_thread_count(made, change):
    found = compare(made(seed=1, batches=(1, 4)), change(made(seed=2), "onnxruntime", threads=2), "old.json")
    assert [r.verdict for r in found.rows if r.name == "onnxruntime"] == ["new", "new", "gone"]
    assert {r.verdict for r in found.rows if r.batch == 4} == {"new"}


def test_a_row_that_failed_late_has_failed(made, change):
    late = change(made(seed=1), "onnxruntime", status="failed", reason="its labels could not be scored")
    assert verdicts(compare(late, made(seed=2), "old.json"))["onnxruntime"] == "fails now"
    assert verdicts(compare(made(seed=2), late, "old.json"))["onnxruntime"] == "works again"
    eager = change(late, "torch channels_last", status="failed", reason="?")
    assert "speed-up over torch eager" in of(compare(eager, made(seed=2), "old.json"), "onnxruntime int8")[0].why


def test_of_many_rows_only_some_are_named(made):
    new = made({"torch eager": 20.0, **{f"new{i}": 5.0 for i in range(6)}}, seed=1)
    said = compare(new, made(seed=2), "old.json").verdict
    assert "6 rows new: new0, batch 1, 1 thread, 200x200; new1, " in said
    assert "; new3, batch 1, 1 thread, 200x200 and 2 more. 3 rows gone: torch channels_last, " in said


def test_few_rounds_say_nothing(made):
    found = compare(made(seed=1, rounds=4), made(seed=2), "old.json")
    assert set(verdicts(found).values()) == {"too few rounds"}
    row, changes = of(found, "onnxruntime")
    assert changes["p50_ms"].low is None
    assert "(no interval)" in row.why


def test_gates_on_changes(made):
    slow = made({**TIMES, "onnxruntime": 10.8}, seed=1)
    new = slow.model_copy(update={"comparison": compare(slow, made(seed=2), "old.json")})
    row = next(r for r in new.rows if r.name == "onnxruntime")
    p50, speedup = (next(c for c in new.comparison.rows[2].changes if c.metric == m) for m in ("p50_ms", "speedup"))
    for metric, value in (
        ("p50_change", p50.change), ("p50_change_low", p50.low), ("p50_change_high", p50.high),
        ("speedup_change", speedup.change),
    ):  # fmt: skip
        assert number_of(metric, new, row) == value
    texts = ("slower_rows==0", "slower_rows[precision=int8]==0", "lost_rows==0", "p50_change_low[precision=fp32]<=0.02")
    checks = hold([parse_gate(t) for t in texts], new)
    assert [c.passed for c in checks] == [False, True, True, False]
    assert checks[0].message == "all rows: slower_rows is 1 (onnxruntime, batch 1, 1 thread, 200x200), expected == 0"


def test_gates_on_rows_that_are_gone_or_fail(made):
    new = made({"torch eager": 20.0, "onnxruntime": None, "quick": 5.0}, seed=1)
    new = new.model_copy(update={"comparison": compare(new, made(seed=2), "old.json")})
    lost, slower, quick = hold([parse_gate(t) for t in ("lost_rows==0", "slower_rows==0", "p50_change<=9")], new)[:3]
    (new_only,) = hold([parse_gate("lost_rows[name=quick]==0")], new)
    assert not new_only.passed
    assert "it selects no row of the older report" in new_only.message
    assert lost.value == 2  # one fails now, int8 is gone; torch's rows do not ship
    assert "(onnxruntime, batch 1, 1 thread, 200x200; onnxruntime int8, batch 1" in lost.message
    assert slower.value is None
    assert not slower.passed  # a row that fails has not been shown to be as fast as before
    assert not quick.passed


@pytest.mark.parametrize("gate", ["p50_change<=9", "p99_change<=9", "slower_rows==0", "speedup_change>=-1"])
def test_no_gate_is_kept_by_times_that_cannot_be_compared(made, gate):
    new = machine(made(seed=1), cpu="Other CPU")
    new = new.model_copy(update={"comparison": compare(new, made(seed=2), "old.json")})
    checks = hold([parse_gate(gate), parse_gate("miou_change>=0")], new)
    assert not checks[0].passed
    assert "another CPU: Example CPU, now Other CPU" in checks[0].message
    assert checks[-1].passed  # scores can be compared


def test_no_gate_is_kept_by_few_rounds(made):
    new = made(seed=1, rounds=4)
    new = new.model_copy(update={"comparison": compare(new, made(seed=2), "old.json")})
    (slower,) = hold([parse_gate("slower_rows==0")], new)
    assert not slower.passed
    low = hold([parse_gate("p50_change_low<=9")], new)[0]
    assert not low.passed
    assert "too few rounds" in low.message
