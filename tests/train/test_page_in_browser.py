"""The page of a run as a reader sees it: at the width of a phone and of a desk, light and dark, and printed."""

import pytest

pytestmark = pytest.mark.xdist_group("chromium")  # one browser for all of them


@pytest.fixture
def show(chromium, tiny_run):
    """Opens the page; what it says to the console or asks of the network is a failure."""
    pages, heard = [], []

    def show(width, scheme="light"):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda asked: heard.append(asked.url) if not asked.url.startswith("data:") else None)
        page.goto((tiny_run / "training.html").as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert [h for h in heard if not h.endswith("/training.html")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_and_can_be_read(show, page_faults, width, scheme):
    page = show(width, scheme)
    page.eval_on_selector_all("details", "all => all.forEach(e => { e.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page_faults(page) == {"outside": [], "covered": [], "contrast": []}


def test_tables_fit_a_desk(show):
    wide = show(1280).eval_on_selector_all(
        ".scroll", "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
    )
    assert wide == []


def test_charts_and_tables_have_names_for_those_who_cannot_see_them(show):
    page = show(1280)
    for name in ("Loss over the epochs", "Validation IoU of disc over the epochs", "Confusion matrix of epoch"):
        assert page.get_by_role("img", name=name).count() == 1
    for name in ("Table: classes", "Table: confusion matrix", "Table: parts of the data"):
        assert page.get_by_role("region", name=name, exact=True).count() == 1
    for link in page.get_by_role("navigation", name="Contents").get_by_role("link").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    page.wait_for_function("[...document.images].every(e => e.complete)")
    assert all(page.eval_on_selector_all("img", "all => all.map(e => e.naturalWidth > 1 && e.alt)"))


def test_page_prints_light_and_whole(show):
    page = show(1280, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 1031, "height": 700})  # as wide as the paper, less its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 1031
