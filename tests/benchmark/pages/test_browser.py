"""The page as a reader sees it: in Chromium, at the width of a phone and of a desk, light and dark, and printed."""

import json
import re

import pytest

from segdeploy.benchmark.report import write_report

pytestmark = pytest.mark.xdist_group("chromium")  # one browser for all of them

MINUS = "\N{MINUS SIGN}"
SHOWN_IN_PERCENT = {
    "mean_iou", "miou_delta", "boundary_iou", "boundary_delta", "iou", "iou_delta", "label_agreement", "agreement",
    "accuracy", "precision", "pixel_accuracy", "mean_class_accuracy", "worst_agreement", "reference_miou", "miou",
    "miou_drop", "worst_class_drop", "change", "low", "high",
}  # fmt: skip
ROUNDED_DOWN = {"label_agreement", "agreement", "worst_agreement"}


@pytest.fixture(scope="module")
def folder(large_result, tmp_path_factory):
    return write_report(large_result, tmp_path_factory.mktemp("report")).parent


@pytest.fixture
def show(chromium, folder):
    """Opens a report at a width; what the page says to the console or asks of the network is a failure."""
    pages, heard = [], []

    def show(width=1280, scheme="light", report=folder / "report.html"):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda asked: heard.append(asked.url) if not asked.url.startswith("data:") else None)
        page.goto(report.as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert [h for h in heard if not h.endswith("/report.html")] == []


def value_at(report, path):
    for key in path.split("."):
        report = report[int(key)] if isinstance(report, list) else report[key]
    return report


def check_number(shown, value, key):
    """`shown` is `value` to the digits that it has, and it has at least two that count."""
    value = value * 100 if key in SHOWN_IN_PERCENT else value / 2**20 if key == "artifact_bytes" else value
    decimals = len(shown.partition(".")[2])
    if key in ROUNDED_DOWN:
        assert -1e-6 <= value - float(shown) < 0.00101, (shown, value, key)
    else:
        assert abs(float(shown) - value) <= 0.5000001 * 10**-decimals, (shown, value, key)
    counted = shown.replace(".", "").strip("-+0")
    assert len(counted) >= 2 or decimals >= 1 or isinstance(value, int) or value in (0, 100), (shown, value, key)


def test_every_number_of_the_tables_is_that_of_the_json(show, folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    cells = show().eval_on_selector_all("[data-json]", "all => all.map(e => [e.dataset.json, e.textContent])")
    seen = set()
    for paths, text in cells:
        numbers = re.findall(r"[-+]?\d[\d,]*\.?\d*", text.replace(MINUS, "-"))
        asked = paths.split()
        assert len(numbers) >= len(asked) > 0, (paths, text)
        for path, shown in zip(asked, numbers, strict=False):
            check_number(shown.replace(",", ""), value_at(report, path), path.rpartition(".")[2])
            seen.add(path)
    for i, row in enumerate(report["rows"]):
        if row["status"] == "ok":
            wanted = {f"latency.{key}" for key in ("p50", "p90", "p99", "mean", "min")}
            wanted |= {"engine.p50", "images_per_second", "speedup", "speedup_low", "speedup_high"}
            wanted |= {"file_to_file.p50"} if row["file_to_file"] else set()
            assert {f"rows.{i}.{key}" for key in wanted} <= seen
    for i, score in enumerate(report["accuracy"]):
        wanted = {"mean_iou", "miou_delta", "boundary_iou", "boundary_delta", "label_agreement"}
        wanted |= {"worst.0.agreement"} if score["label_agreement"] < 1 else set()
        assert {f"accuracy.{i}.{key}" for key in wanted} <= seen
        if i:
            known = [c for c, held in enumerate(score["per_class"]) if held["iou_delta"] is not None]
            assert {f"accuracy.{i}.per_class.{c}.{k}" for c in known for k in ("iou_delta", "boundary_delta")} <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_and_can_be_read(show, page_faults, width, scheme):
    page = show(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page_faults(page) == {"outside": [], "covered": [], "contrast": []}


def test_every_figure_is_there(show):
    page = show()
    page.eval_on_selector_all("details", "all => all.forEach(e => { e.open = true })")
    drawn = page.eval_on_selector_all("svg", "all => all.map(e => [e.getAttribute('aria-labelledby'), e.clientHeight])")
    names = [name.split("-title")[0] for name, _ in drawn]
    assert {re.sub(r"-\d+$", "", name) for name in names} == {"scatter", "latency", "throughput", "confusion"}
    assert [sum(n.startswith(kind) for n in names) for kind in ("scatter", "latency", "throughput")] == [4, 4, 2]
    assert all(height > 100 for _, height in drawn)
    page.wait_for_function("[...document.images].every(e => e.complete)")
    widths = page.eval_on_selector_all("img", "all => all.map(e => [e.alt, e.naturalWidth, e.clientWidth])")
    assert len(widths) == 6 * 5 * 5 + 5 * 4  # five images of each row that differs, and of torch, without disagreement
    assert all(alt and natural > 1 and wide > 50 for alt, natural, wide in widths)


def test_charts_and_tables_have_names_for_those_who_cannot_see_them(show):
    page = show()
    assert page.get_by_role("img", name="Accuracy against time per image, batch 1, 1 CPU thread").count() == 1
    for name in ("Table: Results at a glance", "Table: IoU differences of each class", "Table: Cost of all rows"):
        assert page.get_by_role("region", name=name).count() == 1
    assert page.get_by_role("navigation", name="Contents").get_by_role("link").count() == 15


def test_tables_fit_a_desk_and_scroll_inside_their_box_on_a_phone(show):
    assert not show().eval_on_selector_all(
        ".scroll", "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
    )
    wide = show(360).eval_on_selector_all(".scroll", "all => all.map(e => [e.scrollWidth > e.clientWidth, e.tabIndex])")
    assert [True, 0] in wide
    assert all(focus == 0 for scrolls, focus in wide if scrolls)


def test_page_prints_light_and_whole(show, folder):
    page = show(scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # As wide as the paper, less its margins: nothing is cut off.
    page.set_viewport_size({"width": 1031, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1031
    cut = page.eval_on_selector_all(
        "table", "all => all.filter(e => e.getBoundingClientRect().right > 1031).map(e => e.id)"
    )
    assert cut == []
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True)))
    assert 10 <= pages <= 40


def test_small_report_with_awkward_names_fits_too(show, page_faults, result, tmp_path):
    page = show(360, report=write_report(result, tmp_path))
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page_faults(page, "outside", "covered") == {"outside": [], "covered": []}
