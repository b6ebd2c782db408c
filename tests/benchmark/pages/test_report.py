"""The pages as text: numbers, names, words. `test_browser` looks at them as a reader does."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from segdeploy.benchmark import charts, schema
from segdeploy.benchmark.report import to_html, to_markdown, write_report
from segdeploy.benchmark.result import parse_result
from segdeploy.benchmark.verdict import FEW_ROUNDS, judge, verdict
from segdeploy.errors import ModelError
from segdeploy.pages import matrix
from segdeploy.pages.formats import figure, points, share

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
PNG = "data:image/png;base64,"
NASTY = "<b>&"
SECTIONS = [
    "Results at a glance", "The baseline", "Speed", "Accuracy", "Where the labels differ most", "Cost", "What failed",
    "Verification", "How it was measured", "Machine and versions", "How to reproduce it", "Confusion matrix",
    "Example pictures", "What the words mean",
]  # fmt: skip
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Keeps text, attributes and tables, and says where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.tags, self.tables, self.headings, self.text = [], [], [], {}, [], ""
        self.cells = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = self.tables.setdefault(attrs.get("id", f"facts{len(self.tables)}"), [])
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th"):
            self.table[-1].append(["", int(attrs.get("colspan") or 1)])
            self.cells.append(attrs.get("data-json"))
        if tag == "h2":
            self.headings.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.table[-1][-1][0] += data
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data


def lines(text, table="glance"):
    """A table of the page as a list of {head: cell}; a cell that spans several columns stands under the first."""
    head, *body = Page(text).tables[table]
    return [{h[0]: c[0].strip() for h, c in zip(head, row, strict=False)} for row in body if len(row) > 1]


def drawings(text):
    found = map(ET.fromstring, re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    return {d.get("aria-labelledby").split("-title")[0]: d for d in found}


def markdown_rows(text):
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def change(result, name, batch=1, **values):
    return result.model_copy(
        update={
            "rows": tuple(r.model_copy(update=values) if (r.name, r.batch) == (name, batch) else r for r in result.rows)
        }
    )


def change_accuracy(result, name, **values):
    return result.model_copy(
        update={"accuracy": tuple(a.model_copy(update=values) if a.name == name else a for a in result.accuracy)}
    )


def test_json_gives_the_same_pages_again(large_result, tmp_path):
    page = write_report(large_result, tmp_path / "deep" / "folder")
    assert page == tmp_path / "deep" / "folder" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "report.json", "report.md"]
    again = parse_result((page.parent / "report.json").read_bytes(), "report.json")
    assert again == large_result
    assert to_html(again) == page.read_text(encoding="utf-8")
    assert to_markdown(again) == (page.parent / "report.md").read_text(encoding="utf-8")


def test_published_schema_is_current():
    """Where this fails: python -m segdeploy.benchmark.schema > segdeploy/benchmark/report.schema.json."""
    assert schema.PUBLISHED.read_text(encoding="utf-8") == schema.schema_text()
    found = schema.report_schema()
    assert found["properties"]["schema_version"]["const"] == 2
    assert found["$id"] == "urn:segdeploy:report:2"


def test_schema_allows_a_report(large_result):
    """Every key of a report is in the schema, and what the schema requires is in the report."""
    rules = schema.report_schema()

    def check(value, rule, where):
        rule = rules["$defs"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
        if "anyOf" in rule:
            rule = next(r for r in rule["anyOf"] if (r.get("type") == "null") == (value is None))
            return check(value, rule, where)
        kinds = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}
        assert rule.get("type") in (None, "null") or isinstance(value, kinds[rule["type"]]), where
        if isinstance(value, dict) and "properties" in rule:
            assert set(rule.get("required", ())) <= set(value) <= set(rule["properties"]), where
            for key, held in value.items():
                check(held, rule["properties"][key], f"{where}.{key}")
        if isinstance(value, list) and "items" in rule:
            for held in value:
                check(held, rule["items"], where)
        return None

    check(json.loads(large_result.model_dump_json()), rules, "report")


def test_report_of_another_schema_gets_one_line(result):
    old = json.loads(result.model_dump_json()) | {"schema_version": 1}
    del old["rows"][0]["height"]
    with pytest.raises(ModelError) as raised:
        parse_result(json.dumps(old), "report.json")
    assert "report.json: expected a report of schema 2, found schema 1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_pages_are_well_formed(result, large_result):
    for made in (result, large_result):
        page = Page(to_html(made))
        assert (page.faults, page.open) == ([], [])
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        targets = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
        assert targets
        assert all(target[1:] in ids for target in targets)
        for table in page.tables.values():
            assert len({sum(span for _, span in row) for row in table}) == 1


def test_sections_come_in_order(result, large_result):
    assert Page(to_html(result)).headings == ["Before you quote these numbers", *SECTIONS]
    asked = [s for s in SECTIONS if s != "Example pictures"]
    asked[1:1] = ["Gates", "What changed"]
    assert Page(to_html(large_result)).headings[1:] == asked


def test_pictures_are_named(result):
    text = to_html(result)
    found = drawings(text)
    assert list(found) == ["scatter-0", "latency-0", "latency-1", "throughput-0", "scatter-1", "confusion-0"]
    for drawing in found.values():
        by_id = {e.get("id"): e.text for e in drawing.iter() if e.get("id")}
        assert drawing.get("role") == "img"
        assert all(by_id[name].strip() for name in drawing.get("aria-labelledby").split())
        assert drawing.get("viewBox")
        assert drawing.get("width") is None
        # Every colour is the page's, so that dark mode reaches it.
        paints = {e.get(key) for e in drawing.iter() for key in ("fill", "stroke")} - {None, "currentColor"}
        assert all(re.fullmatch(r"var\(--\w+\)", paint) for paint in paints)
        assert all(text.count(f"{p[4:-1]}: ") == 2 for p in paints)
    images = [attrs for tag, attrs in Page(text).tags if tag == "img"]
    assert len(images) == 4 + 5 + 4
    assert all(attrs["alt"].strip() and attrs["src"].startswith(PNG) for attrs in images)


def test_nothing_comes_from_elsewhere(large_result):
    text = to_html(large_result)
    assert not re.search(r"\w+://", text.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    assert not re.search(r"url\(|@import", text)
    tags = Page(text).tags
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in tags}
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert any(attrs.get("http-equiv") == "Content-Security-Policy" for _, attrs in tags)


def test_picture_that_is_no_data_is_not_loaded(result):
    hostile = result.pictures[0].model_copy(update={"truth": "https://example.org/x.png"})
    page = Page(to_html(result.model_copy(update={"pictures": (hostile,)})))
    assert not [attrs for tag, attrs in page.tags if tag == "img" and not attrs["src"].startswith(PNG)]
    assert "(no picture)" in page.text


def test_every_part_comes_with_its_distribution_and_version(result):
    for text in (Page(to_html(result)).text, to_markdown(result).replace("\\", "")):
        assert "fancy (acme-decoders 3.1) on fpn (segdeploy 0.1.0)" in text
        assert "onnxruntime (segdeploy 0.1.0), quick_one (acme-quick 2.5)" in text


def test_names_are_escaped(result):
    text = to_html(result)
    page = Page(text)
    assert "b" not in {tag for tag, _ in page.tags}
    assert "<b>&" not in text
    for table in ("heat-iou", "heat-boundary", "classes-table"):
        assert any(cell[0] == NASTY for row in page.tables[table] for cell in row)
    assert "street <model>" in page.text
    assert NASTY in "".join(drawings(text)["confusion-0"].itertext())
    note = to_markdown(result)
    assert "<b>" not in note
    assert "&lt;b&gt;&amp;" in note
    assert r"the machine was \*busy\*, \_very\_ [x]\(y)" in note
    assert "channels_last" in to_markdown(result.model_copy(update={"model": "channels_last"}))


def test_control_characters_do_not_break_the_drawings():
    drawn = charts.scatter([charts.Point("a\x00b", 0, 1.0, 0.5)], "batch\x071")
    assert "a b" in "".join(ET.fromstring(drawn).itertext())


def test_failed_row_shows_its_reason(result):
    text, reason = to_html(result), result.rows[3].reason
    assert lines(text, "speed-table")[3]["p50, ms"] == f"failed: {reason}"
    assert "Failed: onnxruntime at batch 4, 2 CPU threads (no compiler:" in str(verdict(result))
    assert f"failed onnxruntime, batch 4, 2 CPU threads {reason}" in " ".join(Page(text).text.split())
    assert "failed: no compiler: &lt;script&gt;" in to_markdown(result)
    # The row did run elsewhere, so its cost is known.
    assert lines(text, "cost-table")[1]["Best images/s"] == "46.07"


def test_what_is_not_known_is_a_dash(result):
    bare = change(result, "onnxruntime", speedup=None, speedup_low=None, speedup_high=None, artifact_bytes=None,
                  peak_memory_mib=None, load_seconds=None, first_call_seconds=None, cold_seconds=None, provider=None,
                  latency=None, engine=None, file_to_file=None, images_per_second=None, warmup_calls=None, steady=None,
                  rounds=None, repeated=None, disturbed=None, agreement=None)  # fmt: skip
    unknown = ("mean_iou", "miou_delta", "label_agreement", "boundary_iou", "boundary_delta", "pixel_accuracy",
               "mean_class_accuracy")  # fmt: skip
    bare = change_accuracy(bare, "onnxruntime", worst=(), **dict.fromkeys(unknown))
    text = to_html(bare.model_copy(update={"rows": bare.rows[:2]}))
    for table in ("glance", "speed-table", "cost-table", "steady-table", "accuracy-table"):
        assert {v for k, v in lines(text, table)[1].items() if k != "Row"} == {DASH}, table
    assert figure(float("nan")) == points(None) == share(float("nan")) == DASH


def test_numbers_are_never_flattered():
    assert share(0.9999999) == "99.999"
    assert share(1.0) == "100"
    assert share(0.99998) == "99.998"
    assert points(0.0001) == "+0.01"
    assert points(-0.0123) == f"{MINUS}1.23"
    assert points(-0.00001) == "0.00"
    assert figure(12345.6) == "12,346"
    assert figure(0.04217) == "0.0422"


def test_baseline_is_named_and_set_against_the_other_torch_rows(result, make_row, large_result):
    assert [line["Row"] for line in lines(to_html(result))] == ["onnxruntime", "torch eager baseline"]
    row = lines(to_html(large_result), "baseline-table")[0]
    p50 = [r.latency.p50 for r in large_result.rows if r.name in ("torch eager", "torch compile")]
    assert row["Batch 1, 1 CPU thread: p50, ms"] == f"{p50[0]:.1f} ({p50[0] / p50[1]:.2f}x)"
    assert "(baseline)" in lines(to_html(large_result), "baseline-table")[3]["Batch 4, 2 CPU threads: p50, ms"]


def test_compiled_rows_are_claimed_where_they_ran(result, make_row):
    failed = make_row("torch compile", 1, 5.0).model_copy(update={"status": "failed", "latency": None})
    without = result.model_copy(update={"rows": (*result.rows, failed)})
    elsewhere = result.model_copy(update={"rows": (*result.rows, make_row("torch compile", 4, 50.0))})
    assert "the fastest row of torch, none of them compiled" in to_markdown(elsewhere)  # the headline's setting
    having = result.model_copy(update={"rows": (*result.rows, make_row("torch compile", 1, 50.0))})
    for changed, said in ((without, "none of them compiled"), (having, "compiled ones included")):
        assert f"fastest row of torch that ran, {said}" in Page(to_html(changed)).text
        assert f"the fastest row of torch, {said}" in to_markdown(changed)


def test_glance_is_sorted_and_speed_has_a_part_for_each_setting(large_result):
    text = to_html(large_result)
    times = [float(line["p50, ms"]) for line in lines(text) if not line["p50, ms"].startswith("failed")]
    assert len(times) == 11
    assert times == sorted(times)
    assert lines(text)[-1]["Row"] == "tensorrt fp16"
    settings = [row[0][0] for row in Page(text).tables["speed-table"] if len(row) == 1]
    assert settings == [f"Batch {b}, {t} CPU thread{'s' * (t > 1)}" for t in (1, 2) for b in (1, 4)]


def test_steadiness_adds_up_all_settings(large_result):
    rows = [r for r in large_result.rows if r.name == "openvino bf16"]
    found = next(line for line in lines(to_html(large_result), "steady-table") if line["Row"] == "openvino bf16")
    assert found["Calls timed"] == str(sum(len(turn) for r in rows for turn in r.latency.samples))
    assert found["Rounds that count"] == str(sum(r.rounds for r in rows)) == "120"
    assert found["Rounds measured again"] == str(sum(r.repeated for r in rows))
    assert found["Disturbed rounds that count"] == str(sum(r.disturbed for r in rows))
    assert found["Steady"] == "not in 4 of 4"


def test_losses_and_gains_have_their_own_colour(large_result):
    text = to_html(large_result)
    for measure in ("iou", "boundary"):
        drawn = re.search(rf'<table class="heat" id="heat-{measure}">.*?</table>', text, re.DOTALL).group()
        cells = re.findall(r'<td class="number (\w+)"(?: style="--a:([\d.]+)")?[^>]*>([^<]*)<', drawn)
        assert len(cells) == 10 * 19
        for kind, strength, said in cells:
            wanted = "loss" if MINUS in said else "gain" if "+" in said else "zero"
            assert (kind, bool(strength)) == (wanted, wanted != "zero")
        largest = max(cells, key=lambda c: float(c[2].replace(MINUS, "")) if c[0] == "loss" else 0)
        assert largest[1] == "1.00"
        assert len({strength for _, strength, _ in cells}) > 20


def test_worst_images_come_first_and_alike_rows_show_none(large_result):
    text = to_html(large_result)
    names = re.findall(r"<summary><strong>(.*?)</strong>", text)
    assert names[0] == "openvino int8"
    assert names[-1] == "torch eager fp32"
    assert text.count("<details open>") == 1
    alike = re.search(r'class="same">(.*?)</p>', text).group(1)
    assert alike.endswith("torch channels_last fp32, torch compile fp32, onnxruntime fp32, openvino fp32.")


def test_missed_gates_come_first(large_result):
    text = to_html(large_result)
    assert [line["Outcome"].partition(":")[0] for line in lines(text, "gates-table")] == [
        "not kept",
        "not kept",
        "kept",
    ]
    assert "2 of 3 checks against gates not kept, see Gates." in str(verdict(large_result))
    assert "**not kept** | p99_ms[backend=onnxruntime,batch=1]&lt;=25" in to_markdown(large_result)


def test_changes_come_with_their_intervals(large_result):
    row = lines(to_html(large_result), "since-table")[0]
    assert row["p50 change, %"] == f"{MINUS}1.0 [{MINUS}2.1, +0.4]"
    assert row["mIoU change, points"] == "+0.12"
    assert row["Time"] == "no measurable change"
    assert "failed in both: the library is not installed" in to_markdown(large_result)


def test_verdict_when_it_is_faster(result):
    said = verdict(result)
    assert said.headline == (
        "onnxruntime is 1.31x [1.28, 1.34] as fast as torch eager (the fastest way that was found to run the model in "
        "torch), and gives the same class on 99.998 % of the pixels "
        f"(mIoU 52.60 vs 52.62 %, {MINUS}0.02 points). "
        "That is at batch 1, 2 CPU threads, 128 \N{MULTIPLICATION SIGN} 96 pixels."
    )
    assert "On the 7 images of test.csv, torch eager reaches a mean IoU of 52.62 %." in said.findings
    assert "onnxruntime elsewhere: failed at batch 4, 2 CPU threads." in said.findings
    assert any("comparison with torch was not passed" in line for line in said.cautions)
    assert said.cautions[-1] == result.notes[0]


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        ((0.8, 0.78, 0.82), "model in torch), 0.80x [0.78, 0.82] as fast"),
        ((1.02, 0.97, 1.06), "is neither measurably faster nor slower than torch eager"),
        ((1.02, 1.001, 1.06), "1.02x [1.00, 1.06] as fast: the interval includes 1.0"),
        ((0.98, 0.95, 0.999), "is neither measurably faster nor slower"),
        ((1.31, None, None), "model in torch) by the median, but there is no interval"),
        ((None, None, None), "onnxruntime takes 21.70 ms a call, and has no speed-up on record"),
    ],
)
def test_verdict_says_no_more_than_the_interval(result, speedup, words):
    keys = ("speedup", "speedup_low", "speedup_high")
    changed = change(result, "onnxruntime", **dict(zip(keys, speedup, strict=True)))
    assert words in verdict(changed).headline
    assert words in to_markdown(changed)
    assert words.replace(" %", "\N{NO-BREAK SPACE}%") in Page(to_html(changed)).text


def test_verdict_doubts_few_rounds(result):
    few = change(result, "onnxruntime", rounds=FEW_ROUNDS - 1)
    assert f"by the median, but {FEW_ROUNDS - 1} rounds are too few" in verdict(few).headline
    assert "There are too few rounds for the intervals to mean much." in verdict(few).cautions


@pytest.mark.parametrize(
    ("doubtful", "words"),
    [
        ({"disturbed": 4}, "by the median, but other work took the cores during 4 of 30 rounds"),
        ({"speedup_of_fastest": 1.1}, "by the median, but 1.10x by the fastest calls: measure again"),
        ({"disturbed": 3}, None),
        ({"speedup_of_fastest": 1.25}, None),
    ],
)
def test_verdict_claims_nothing_from_a_noisy_run(result, doubtful, words):
    changed = change(result, "onnxruntime", **doubtful)
    assert judge(changed.rows[1], 30) == ("unsure" if words else "faster")
    said = verdict(changed).headline
    assert (words or "onnxruntime is 1.31x [1.28, 1.34] as fast as torch eager (the") in said


def test_scores_are_shown_where_they_were_taken(result):
    assert DASH not in {line["mIoU, %"] for line in lines(to_html(result))}
    other = result.model_copy(update={"rows": tuple(r.model_copy(update={"width": 640}) for r in result.rows)})
    text, times = to_html(other), "\N{MULTIPLICATION SIGN}"
    assert {line["mIoU, %"] for line in lines(text)} == {DASH}
    assert lines(text, "speed-table")[1]["Same, %"] == "99.876"
    assert f"scored at 128 {times} 96 pixels, batch 1" in Page(text).text
    assert f"scored at 128 {times} 96, batch 1" in to_markdown(other)
    assert f"accuracy was not measured at this size, only at 128 {times} 96" in verdict(other).headline


def test_verdict_tells_of_disturbance_once_for_all_rows_of_a_setting(large_result):
    said = verdict(large_result).cautions
    assert "Other work took the cores during 2 of the 120 rounds that count." in said
    assert "12 disturbed rounds were measured again." in said
    assert "4 rows of 44 had not become steady when the warm-up ended." in said


def test_verdict_prefers_a_row_that_keeps_the_labels(large_result):
    said = verdict(large_result)
    assert said.headline.startswith("onnxruntime int8 is ")
    assert "Not the labels of torch: openvino int8 (90.640 % of the pixels agree" in str(said)
    assert "The lowest median time in this setting is that of openvino int8" in str(said)
    assert "Failed: tensorrt fp16 everywhere" in str(said)


def test_verdict_tells_many_settings_as_a_range(large_result):
    int8 = [r for r in large_result.rows if r.name == "onnxruntime int8"]
    assert "onnxruntime int8 elsewhere: " in str(verdict(large_result))
    wide = [r.model_copy(update={"height": 704}) for r in large_result.rows[:12]]
    more = verdict(large_result.model_copy(update={"rows": (*large_result.rows, *wide)}))
    low, high = (f"{f(r.speedup for r in (*int8[1:], int8[0])):.2f}x" for f in (min, max))
    assert f"onnxruntime int8 in the 4 other settings: {low} to {high} as fast as each one's baseline." in more.findings


def test_verdict_on_labels(result):
    worse = change_accuracy(result, "onnxruntime", label_agreement=0.95, mean_iou=0.4, miou_delta=-0.1262)
    assert "but does not keep torch's labels: 95.000 % of the pixels agree" in verdict(worse).headline
    lower = change_accuracy(result, "onnxruntime", mean_iou=0.5, miou_delta=-0.0262)
    assert "but does not keep torch's labels" in verdict(lower).headline
    equal = change_accuracy(result, "onnxruntime", label_agreement=1.0, mean_iou=0.5262, miou_delta=0.0)
    assert "gives the same class on every pixel (mIoU 52.62 vs 52.62 %)" in verdict(equal).headline
    alone = result.model_copy(update={"accuracy": result.accuracy[1:]})
    assert "nothing here says whether accuracy was kept" in str(verdict(alone))
    assert "was not compared with torch's labels" in verdict(alone).headline
    none = result.model_copy(update={"accuracy": result.accuracy[:1]})
    assert "its accuracy was not measured" in verdict(none).headline


def test_verdict_names_both_devices_when_they_differ(result):
    said = verdict(change(result, "onnxruntime", provider="CUDAExecutionProvider")).headline
    assert "as fast as torch eager on cpu (the fastest" in said
    assert said.endswith("96 pixels on CUDAExecutionProvider.")


def test_verdict_with_torch_alone_and_with_failures_alone(result, make_row):
    rows = (result.rows[0], make_row("torch channels_last", 1, 35.0, (0.8, 0.7, 0.9)))
    said = verdict(result.model_copy(update={"rows": rows, "accuracy": result.accuracy[:1]})).headline
    assert said == "Only torch ran at batch 1, 2 CPU threads; its fastest row is torch eager."
    said = verdict(result.model_copy(update={"rows": result.rows[3:]}))
    assert said.headline == "Nothing ran at batch 4, 2 CPU threads: every row failed."


def test_markdown_tables_have_one_width(result):
    text = to_markdown(result)
    blocks = [b for b in re.split(r"\n(?!\|)", text) if "\n|" in f"\n{b}"]
    tables = [rows for rows in map(markdown_rows, blocks) if rows]
    assert [len(t) for t in tables] == [2 + 2, 2 + 4 + 2, 2 + 2, 2 + 3, 2 + 2, 2 + 1]
    for rows in tables:
        assert len({len(row) for row in rows}) == 1
        assert all(re.fullmatch(r" -+:? ", cell) for cell in rows[1])
    assert [cell.strip() for cell in tables[0][2]] == list(lines(to_html(result))[0].values())


def test_markdown_fits_into_a_comment(large_result):
    assert len(to_markdown(large_result)) < 2**16  # GitHub's limit


def test_markdown_command_stays_in_its_fence(result):
    text = to_markdown(result.model_copy(update={"command": "segdeploy benchmark '```' x"}))
    assert "````sh\nsegdeploy benchmark '```' x\n````" in text


def test_empty_result_still_makes_a_page(result):
    bare = result.model_copy(
        update={"rows": (), "accuracy": (), "pictures": (), "verification": (), "notes": (), "baseline": "",
                "command": "", "machine": {}, "parameters": None},
    )  # fmt: skip
    page = Page(to_html(bare))
    assert (page.faults, page.open) == ([], [])
    assert page.headings == [s for s in SECTIONS if s != "Example pictures"]
    assert "<svg" not in to_html(bare)
    assert "Nothing was measured." in to_markdown(bare)


@pytest.mark.parametrize("count", [2, 11, matrix.MAX_MATRIX, matrix.MAX_MATRIX + 1])
def test_confusion_matrix_with_few_and_many_classes(count):
    names = [f"class {i}" for i in range(count)]
    drawn = matrix.heat_map(names, (np.eye(count, dtype=int) * 3 + 1).tolist(), "torch")
    assert bool(drawn) == (count <= matrix.MAX_MATRIX)
    if drawn:
        assert len([e for e in ET.fromstring(drawn).iter() if e.tag.endswith("rect")]) == count**2


def test_confusion_matrix_normalises_rows():
    assert matrix.row_shares([[3, 1], [0, 0]]) == [[0.75, 0.25], [None, None]]
    drawn = ET.fromstring(matrix.heat_map(["a", "b"], [[3, 1], [0, 0]], "torch"))
    titles = [e.text for e in drawn.iter() if e.tag.endswith("title")]
    assert titles[1:] == [
        "a predicted as a: 75.00 %", "a predicted as b: 25.00 %",
        "b predicted as a: no pixels", "b predicted as b: no pixels",
    ]  # fmt: skip


def test_second_confusion_matrix_only_where_it_differs(result):
    assert "confusion-1" not in drawings(to_html(result))
    changed = change_accuracy(result, "onnxruntime", confusion=((80_000, 10_000, 0), (2_100, 7_900, 0), (0, 0, 0)))
    assert "confusion-1" in drawings(to_html(changed))


def test_marks_of_the_scatter_stand_where_the_numbers_say():
    drawn = ET.fromstring(charts.scatter([charts.Point("a", 0, 10.0, 0.5), charts.Point("b", 1, 20.0, 0.6)], "batch 1"))
    places = [
        tuple(map(float, re.match(r"M([\d.]+) ([\d.]+)m", e.get("d")).groups()))
        for e in drawn.iter()
        if e.tag.endswith("path") and len(e)
    ]
    (ax, ay), (bx, by) = places
    assert bx - 48 == pytest.approx(2 * (ax - 48), abs=0.2)  # the axis of times starts at zero, at x = 48
    assert by < ay  # a higher mIoU is higher on the page


def test_numbers_of_the_scatter_cover_nothing():
    """Twelve marks in a heap: every number stays clear of every other number."""
    heap = [charts.Point(f"row {i}", i, 50 + i * 0.7, 0.6 + i % 3 * 1e-4) for i in range(11)]
    drawn = ET.fromstring(charts.scatter([*heap, charts.Point("far", 3, 100, 0.7)], "batch 1"))
    bold = [e for e in drawn.iter() if e.tag.endswith("text") and e.get("font-weight")]
    spots = [(float(e.get("x")), float(e.get("y"))) for e in bold]
    assert len(spots) == 12
    for i, (x, y) in enumerate(spots):
        assert all(abs(x - a) > 9 or abs(y - b) > 9 for a, b in spots[:i])


def test_bars_have_the_length_of_their_numbers(result):
    found = drawings(to_html(result))
    for row in (r for r in result.rows if r.latency):
        chart = found[f"latency-{0 if row.batch == 1 else 1}"]
        said = [e.text for e in chart.iter() if e.tag.endswith("}text")]
        assert f"{row.latency.p50:.2f} / {row.latency.p90:.2f} / {row.latency.p99:.2f}" in said
        rates = [e.text for e in found["throughput-0"].iter() if e.tag.endswith("}text")]
        assert f"{row.images_per_second:.2f}" in rates
    bars = [e for e in found["latency-0"].iter() if e.tag.endswith("rect")]
    engine, rest = (float(bar.get("width")) for bar in bars[:2])
    assert engine / (engine + rest) == pytest.approx(0.9, abs=0.002)  # the engine's share of p50
    assert (engine + rest) / 418 == pytest.approx(1 / 1.4, abs=0.002)  # the scale ends at the slowest p99
