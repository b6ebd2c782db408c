import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segdeploy.benchmark import charts
from segdeploy.benchmark.report import FEW_ROUNDS, figure, points, share, to_html, to_markdown, verdict, write_report
from segdeploy.benchmark.result import Accuracy, BenchmarkResult, ClassScore, Latency, Picture, Row, parse_result
from segdeploy.classes import ClassMap
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NASTY = "<b>&"
REASON = 'no compiler: <script>alert("x")</script> | g++ is missing'
CLASSES = ("road", NASTY, "fog")  # fog is in neither truth nor prediction
SECTIONS = [
    "Results", "Charts", "Classes", "Confusion matrix", "Example pictures", "Verification", "How it was measured",
    "Machine and versions", "Absent classes", "Notes", "Reproduce",
]  # fmt: skip
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def make_row(name, batch, p50, speedup=None, **changes):
    backend, _, variant = name.partition(" ")
    values = {
        "name": name, "backend": backend, "variant": variant, "precision": "fp32", "batch": batch, "threads": 2,
        "provider": "cpu" if backend == "torch" else "CPUExecutionProvider",
        "latency": Latency(p50=p50, p90=p50 * 1.1, p99=p50 * 1.4, mean=p50 * 1.03, min=p50 * 0.97, samples=(p50,) * 60),
        "images_per_second": batch / p50 * 1e3, "artifact": "model.onnx", "artifact_bytes": 16_543_210,
        "load_seconds": 0.3141, "first_call_seconds": 0.0421, "peak_memory_mib": 1234.56,
    }  # fmt: skip
    if speedup:
        values |= dict(zip(("speedup", "speedup_low", "speedup_high"), speedup, strict=True))
    return Row(**{**values, **changes})


def make_accuracy(name, ious, delta, agreement, confusion):
    return Accuracy(
        name=name, backend=name.split()[0], precision="fp32", images=7, mean_iou=sum(ious) / 2, pixel_accuracy=0.9,
        mean_class_accuracy=0.85, miou_delta=delta, label_agreement=agreement,
        per_class=(
            ClassScore(name="road", iou=ious[0], accuracy=0.91, precision=0.92, pixels=90_000, iou_delta=delta * 2),
            ClassScore(name=NASTY, iou=ious[1], accuracy=0.79, precision=0.8, pixels=10_000, iou_delta=0.0),
            ClassScore(name="fog", iou=None, accuracy=None, precision=None, pixels=0),
        ),
        absent_classes=("fog",), confusion=confusion,
    )  # fmt: skip


@pytest.fixture
def result():
    part = Part(name="fpn", config={}, distribution="segdeploy", version="0.1.0")
    theirs = Part(name="fancy", config={}, distribution="acme-decoders", version="3.1")
    return BenchmarkResult(
        created="2026-02-03T10:11:12+00:00",
        command="segdeploy benchmark 'my model' --dataset test.csv",
        model="street <model>",
        parameters=4_012_345,
        spec=ModelSpec(
            encoder=part,
            decoder=theirs,
            classes=ClassMap(names=CLASSES, colors=((0, 0, 0), (200, 30, 30), (30, 30, 200))),
            preprocessing=Preprocessing(height=96, width=128, resize="stretch", mean=(0.5,) * 3, std=(0.2,) * 3),
        ),
        table="test.csv",
        images=7,
        data_sha256="0123456789abcdef" * 4,
        measured_at="mask",
        threads=2,
        rounds=30,
        warmup=5,
        baseline="torch eager",
        machine={
            "cpu": "Example CPU", "cpu_features": ["avx2"], "cores": 2, "memory_gib": None, "os": "Linux",
            "python": "3.11.7", "load_average": 0.1, "packages": {"numpy": "2.0.0", "torch": "2.9.0"},
        },
        rows=(
            make_row("torch eager", 1, 28.4321, (1.0, 1.0, 1.0)),
            make_row("onnxruntime", 1, 21.7049, (1.3099, 1.2812, 1.3378)),
            make_row("torch eager", 4, 104.321, (1.0, 1.0, 1.0)),
            make_row("onnxruntime", 4, 1.0, status="failed", reason=REASON, latency=None, images_per_second=None),
        ),
        accuracy=(
            make_accuracy("torch eager", (0.7124, 0.34), 0.0, 1.0, ((85_000, 5_000, 0), (2_100, 7_900, 0), (0,) * 3)),
            make_accuracy(
                "onnxruntime", (0.7112, 0.34), -0.0006, 0.999984, ((84_998, 5_002, 0), (2_100, 7_900, 0), (0,) * 3)
            ),
        ),
        backends={"onnxruntime": "segdeploy 0.1.0", "quick_one": "acme-quick 2.5"},
        pictures=(Picture(name='a"b.png', image_iou=0.5, image=PNG, truth=PNG, predicted=PNG, errors=PNG),),
        verification=(
            {"backend": "onnxruntime", "precision": "fp32", "batch_size": 1, "images": 7, "agreement": 0.99998,
             "worst_agreement": 0.9991, "worst_image": "a.png", "reference_miou": 0.5262, "miou": 0.5256,
             "miou_drop": 0.0006, "worst_class_drop": 0.0012, "worst_class": "road", "passed": False,
             "reasons": ["mean IoU drops"]},
        ),
        notes=("the machine was *busy*, _very_ [x](y)",),
    )  # fmt: skip


class Page(HTMLParser):
    """Keeps text, attributes and tables, and says where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.tags, self.tables, self.headings, self.text = [], [], [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append(["", int(dict(attrs).get("colspan") or 1)])
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
            self.tables[-1][-1][-1][0] += data
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data


def summary(text):
    """The first table as a list of {head: cell}; a cell that spans several columns stands under the first."""
    head, *body = Page(text).tables[0]
    return [{h[0]: c[0].strip() for h, c in zip(head, row, strict=False)} for row in body]


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


def check_number(shown, value):
    """`shown` is `value` to the digits that it has, and it has at least two that count."""
    digits = shown.replace(",", "").replace(MINUS, "-").rstrip("x")
    decimals = len(digits.partition(".")[2])
    assert abs(float(digits) - value) <= 0.5000001 * 10**-decimals, (shown, value)
    assert len(digits.replace(".", "").strip("-0")) >= 2 or decimals >= 2, (shown, value)


def test_every_number_of_the_table_is_that_of_the_json(result, tmp_path):
    page = write_report(result, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    rows = summary(page.read_text(encoding="utf-8"))
    scores = {a["name"]: a for a in found["accuracy"]}
    assert len(rows) == len(found["rows"]) == 4
    for shown, row in zip(rows, found["rows"], strict=True):
        assert (shown["Row"], shown["Batch"], shown["Precision"]) == (row["name"], str(row["batch"]), row["precision"])
        if row["status"] == "failed":
            continue
        for key in ("p50", "p90", "p99", "mean"):
            check_number(shown[f"{key[0].upper() + key[1:] if key == 'mean' else key}, ms"], row["latency"][key])
        check_number(shown["Images/s"], row["images_per_second"])
        parts = re.fullmatch(r"([\d.]+)x \[([\d.]+), ([\d.]+)\]", shown["Speed-up vs torch eager"]).groups()
        for part, key in zip(parts, ("speedup", "speedup_low", "speedup_high"), strict=True):
            check_number(part, row[key])
        score = scores[row["name"]]
        check_number(shown["mIoU, %"], score["mean_iou"] * 100)
        check_number(shown["mIoU delta, points"], score["miou_delta"] * 100)
        agreement = float(shown["Same label, %"])
        assert 0 <= score["label_agreement"] * 100 - agreement < 0.00101
        check_number(shown["File, MiB"], row["artifact_bytes"] / 2**20)
        check_number(shown["Peak memory, MiB"], row["peak_memory_mib"])
        check_number(shown["Load, s"], row["load_seconds"])
        check_number(shown["First call, s"], row["first_call_seconds"])
        assert shown["Ran on"] == f"{row['provider']}, 2 threads"


def test_all_rows_of_all_tables_are_as_wide_as_their_heads(result):
    for table in Page(to_html(result)).tables:
        assert len({sum(span for _, span in row) for row in table}) == 1


def test_page_is_well_formed(result):
    page = Page(to_html(result))
    assert page.faults == []
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert targets
    assert all(target[1:] in ids for target in targets)


def test_sections_come_in_order(result):
    assert Page(to_html(result)).headings == SECTIONS


def test_pictures_are_named(result):
    text = to_html(result)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    kinds = [ET.fromstring(d).get("aria-labelledby").split("-title")[0] for d in drawings]
    assert kinds == ["scatter", "throughput", "latency", "classes", "confusion-0"]
    for drawing in map(ET.fromstring, drawings):
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
    assert len(images) == 4
    assert all(attrs["alt"].strip() and attrs["src"] == PNG for attrs in images)


def test_nothing_comes_from_elsewhere(result):
    text = to_html(result)
    assert not re.search(r"\w+://", text.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    assert not re.search(r"url\(|@import", text)
    tags = Page(text).tags
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in tags}
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert any(attrs.get("http-equiv") == "Content-Security-Policy" for _, attrs in tags)


def test_picture_that_is_no_data_is_not_loaded(result):
    hostile = result.pictures[0].model_copy(update={"truth": "https://example.org/x.png"})
    page = Page(to_html(result.model_copy(update={"pictures": (hostile,)})))
    assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] == [PNG] * 3


def test_every_part_comes_with_its_distribution_and_version(result):
    for text in (Page(to_html(result)).text, to_markdown(result).replace("\\", "")):
        assert "fancy (acme-decoders 3.1) on fpn (segdeploy 0.1.0)" in text
        assert "onnxruntime (segdeploy 0.1.0), quick_one (acme-quick 2.5)" in text


def test_names_are_escaped(result):
    text = to_html(result)
    page = Page(text)
    assert "b" not in {tag for tag, _ in page.tags}
    assert "<b>&" not in text
    assert NASTY in page.text
    assert any(cell[0] == NASTY for table in page.tables for row in table for cell in row)
    assert "street <model>" in page.text
    assert NASTY in "".join(ET.fromstring(re.findall(r"<svg.*?</svg>", text, re.DOTALL)[3]).itertext())
    note = to_markdown(result)
    assert "<b>" not in note
    assert "&lt;b&gt;&amp;" in note
    assert r"the machine was \*busy\*, \_very\_ [x]\(y)" in note
    assert "channels_last" in to_markdown(result.model_copy(update={"model": "channels_last"}))


def test_control_characters_do_not_break_the_drawings():
    drawn = charts.class_bars(["a\x00b", "c\td"], [charts.ClassBars("x", 0, [0.5, None], [None, None])])
    assert "a b" in "".join(ET.fromstring(drawn).itertext())


def test_failed_row_shows_its_reason(result):
    text = to_html(result)
    assert summary(text)[3]["p50, ms"] == f"failed: {REASON}"
    assert "Failed: onnxruntime at batch 4 (no compiler:" in verdict(result)
    assert "failed: no compiler: &lt;script&gt;" in to_markdown(result)


def test_what_is_not_known_is_a_dash(result):
    bare = change(result, "onnxruntime", speedup=None, artifact_bytes=None, peak_memory_mib=None, load_seconds=None,
                  first_call_seconds=None, provider=None, latency=None, images_per_second=None)  # fmt: skip
    bare = change_accuracy(bare, "onnxruntime", mean_iou=None, miou_delta=None, label_agreement=None)
    row = summary(to_html(bare))[1]
    assert {v for k, v in row.items() if k not in ("Row", "Batch", "Precision")} == {DASH}
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


def test_verdict_when_it_is_faster(result):
    said = verdict(result)
    assert "On the 7 images of test.csv, torch eager reaches a mean IoU of 52.62 %." in said
    assert "onnxruntime gives the same labels as torch eager on 99.998 % of the pixels" in said
    assert f"(mIoU 52.56 vs 52.62 %, {MINUS}0.06 points)" in said
    assert "and is 1.31x [1.28, 1.34] as fast as torch eager at batch 1 on 2 CPU threads; at batch 4: failed." in said
    assert "The lowest median time at batch 1 is that of onnxruntime: 21.70 ms." in said
    assert "comparison with torch was not passed" in said
    assert "Read the notes" in said


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        ((0.8, 0.78, 0.82), "is slower than torch eager at batch 1 on 2 CPU threads: 0.80x [0.78, 0.82] as fast"),
        ((1.02, 0.97, 1.06), "is neither measurably faster nor slower than torch eager"),
        ((1.02, 1.001, 1.06), "1.02x [1.00, 1.06] as fast; the interval includes 1.0"),
        ((0.98, 0.95, 0.999), "is neither measurably faster nor slower"),
        (
            (1.31, None, None),
            "is 1.31x as fast as torch eager at batch 1 on 2 CPU threads by the median, but there is no",
        ),
        ((None, None, None), "has no speed-up on record at batch 1"),
    ],
)
def test_verdict_says_no_more_than_the_interval(result, speedup, words):
    keys = ("speedup", "speedup_low", "speedup_high")
    changed = change(result, "onnxruntime", **dict(zip(keys, speedup, strict=True)))
    assert words in verdict(changed)
    assert words in to_markdown(changed)
    assert words.replace(" %", "\N{NO-BREAK SPACE}%") in Page(to_html(changed)).text


def test_verdict_doubts_few_rounds(result):
    few = result.model_copy(update={"rounds": FEW_ROUNDS - 1})
    assert f"by the median, but {FEW_ROUNDS - 1} rounds are too few" in verdict(few)


def test_verdict_on_labels(result):
    worse = change_accuracy(result, "onnxruntime", label_agreement=0.95, mean_iou=0.4, miou_delta=-0.1262)
    assert "does not give the same labels as torch eager: only 95.000 % of the pixels agree" in verdict(worse)
    equal = change_accuracy(result, "onnxruntime", label_agreement=1.0, mean_iou=0.5262, miou_delta=0.0)
    assert "gives the same label as torch eager on every pixel (mIoU 52.62 vs 52.62 %) and" in verdict(equal)
    alone = result.model_copy(update={"accuracy": result.accuracy[1:]})
    assert "nothing here says whether accuracy was kept" in verdict(alone)
    assert "was not compared with torch's labels" in verdict(alone)


def test_verdict_names_both_devices_when_they_differ(result):
    said = verdict(change(result, "onnxruntime", provider="CUDAExecutionProvider"))
    assert "as fast as torch eager on cpu at batch 1 on CUDAExecutionProvider" in said


def test_verdict_with_torch_alone(result):
    rows = (result.rows[0], make_row("torch channels_last", 1, 20.0, (1.4, 1.3, 1.5)))
    said = verdict(result.model_copy(update={"rows": rows, "accuracy": result.accuracy[:1]}))
    assert "torch channels_last is 1.40x [1.30, 1.50] as fast as torch eager at batch 1" in said


def test_json_gives_the_same_page_again(result, tmp_path):
    page = write_report(result, tmp_path / "deep" / "folder")
    assert page == tmp_path / "deep" / "folder" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "report.json", "report.md"]
    again = parse_result((page.parent / "report.json").read_bytes(), "report.json")
    assert again == result
    assert to_html(again) == page.read_text(encoding="utf-8")
    assert to_markdown(again) == (page.parent / "report.md").read_text(encoding="utf-8")


def test_markdown_tables_have_one_width(result):
    text = to_markdown(result)
    blocks = [b for b in re.split(r"\n(?!\|)", text) if "\n|" in f"\n{b}"]
    tables = [rows for rows in map(markdown_rows, blocks) if rows]
    assert len(tables) == 3
    assert [len(t) for t in tables] == [2 + 4, 2 + 3, 2 + 1]
    for rows in tables:
        assert len({len(row) for row in rows}) == 1
        assert all(re.fullmatch(r" -+:? ", cell) for cell in rows[1])
    page = summary(to_html(result))[1]
    assert [cell.strip() for cell in tables[0][3]] == list(page.values())


def test_markdown_command_stays_in_its_fence(result):
    text = to_markdown(result.model_copy(update={"command": "segdeploy benchmark '```' x"}))
    assert "````sh\nsegdeploy benchmark '```' x\n````" in text


def test_empty_result_still_makes_a_page(result):
    bare = result.model_copy(
        update={"rows": (), "accuracy": (), "pictures": (), "verification": (), "notes": (), "baseline": "",
                "command": "", "machine": {}, "parameters": None},
    )  # fmt: skip
    page = Page(to_html(bare))
    assert (page.faults, page.open, page.headings) == ([], [], SECTIONS)
    assert "<svg" not in to_html(bare)
    assert to_markdown(bare)


@pytest.mark.parametrize("count", [2, 11, charts.MAX_MATRIX, charts.MAX_MATRIX + 1, charts.MAX_BARS + 1])
def test_drawings_with_few_and_many_classes(count):
    names = [f"class {i}" for i in range(count)]
    matrix = (np.eye(count, dtype=int) * 3 + 1).tolist()
    drawn = charts.heat_map(names, matrix, "torch")
    assert bool(drawn) == (count <= charts.MAX_MATRIX)
    if drawn:
        cells = [e for e in ET.fromstring(drawn).iter() if e.tag.endswith("rect")]
        assert len(cells) == count**2
    bars = charts.class_bars(names, [charts.ClassBars("torch", 0, [0.5] * count, [None] * count)])
    assert bool(bars) == (count <= charts.MAX_BARS)


def test_heat_map_normalises_rows():
    assert charts.row_shares([[3, 1], [0, 0]]) == [[0.75, 0.25], [None, None]]
    drawn = ET.fromstring(charts.heat_map(["a", "b"], [[3, 1], [0, 0]], "torch"))
    titles = [e.text for e in drawn.iter() if e.tag.endswith("title")]
    assert titles[1:] == [
        "a predicted as a: 75.00 %", "a predicted as b: 25.00 %",
        "b predicted as a: no pixels", "b predicted as b: no pixels",
    ]  # fmt: skip


def test_other_backends_are_drawn_only_where_they_differ(result):
    text = to_html(result)
    bars = ET.fromstring(re.findall(r"<svg.*?</svg>", text, re.DOTALL)[3])
    said = [e.text for e in bars.iter() if e.tag.endswith("text")]
    assert f"71.12 ({MINUS}0.12)" in said
    assert [t for t in said if t.startswith("34.00")] == ["34.00"]
    assert "onnxruntime: no cell differs from that of torch eager" in Page(text).text
    changed = change_accuracy(result, "onnxruntime", confusion=((80_000, 10_000, 0), (2_100, 7_900, 0), (0, 0, 0)))
    assert 'id="confusion-1-title"' in to_html(changed)


def test_marks_of_the_scatter_stand_where_the_numbers_say():
    drawn = ET.fromstring(charts.scatter([charts.Point("a", 0, 10.0, 0.5), charts.Point("b", 1, 20.0, 0.6)], 1))
    places = [
        tuple(map(float, re.match(r"M([\d.]+) ([\d.]+)m", e.get("d")).groups()))
        for e in drawn.iter()
        if e.tag.endswith("path") and len(e)
    ]
    (ax, ay), (bx, by) = places
    assert bx - 48 == pytest.approx(2 * (ax - 48), abs=0.2)  # the axis of times starts at zero, at x = 48
    assert by < ay  # a higher mIoU is higher on the page


def test_drawn_times_are_those_of_the_rows(result):
    texts = {}
    for drawing in map(ET.fromstring, re.findall(r"<svg.*?</svg>", to_html(result), re.DOTALL)):
        name = drawing.get("aria-labelledby").split("-title")[0]
        texts[name] = [e.text for e in drawing.iter() if e.tag.endswith("}text")]
    for row in result.rows:
        if row.latency is None:
            continue
        assert f"{row.latency.p50:.2f} / {row.latency.p90:.2f} / {row.latency.p99:.2f}" in texts["latency"]
        assert f"{row.images_per_second:.2f}" in texts["throughput"]
        if row.batch == 1:
            assert any(t.startswith(f"{row.latency.p50:.2f} ms, ") for t in texts["scatter"])


def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    return found


def run_browser(folder, *arguments):
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, timeout=60, cwd=folder, check=False)


def test_browser_reads_every_section(result, tmp_path):
    page = write_report(result, tmp_path)
    done = run_browser(tmp_path, "--dump-dom", page.as_uri())
    dom = Page(done.stdout.decode("utf-8"))
    assert dom.headings == SECTIONS, done.stderr.decode("utf-8", "replace")[-2000:]
    assert summary(done.stdout.decode("utf-8")) == summary(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [390, 1200])
def test_browser_draws_the_page(result, tmp_path, width):
    page = write_report(result, tmp_path)
    shot = tmp_path / "shot.png"
    done = run_browser(tmp_path, f"--screenshot={shot}", f"--window-size={width},1200", page.as_uri())
    assert shot.is_file(), done.stderr.decode("utf-8", "replace")[-2000:]
    with Image.open(shot) as picture:
        assert picture.width == width
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
