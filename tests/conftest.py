"""A small data set, run and bundle that many tests share; made for real, in seconds."""

import gc
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

# The same examples on every run and every machine, and no folder of hypothesis beside the code.
hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")
hypothesis.settings.register_profile("segdeploy", max_examples=60, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("segdeploy")

# Torch and the exporter's graphs are millions of objects that stay: looking through them for garbage costs minutes.
gc.set_threshold(100_000, 20, 100)

TINY = """
input_features:
  - name: image
    type: image
    preprocessing: {height: 64, width: 96}
    encoder: {type: timm, model_name: mobilenetv3_small_050, use_pretrained: false}
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [background, disc, box, gear, wrench, sponge, cable]}
    decoder: {type: fpn, num_channels: 16, merge_channels: 16}
trainer: {epochs: 8, batch_size: 4, learning_rate: 5e-3}
"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Facts about files are kept in a folder of this session's, for commands in other processes too."""
    before = os.environ.get("SEGDEPLOY_CACHE")
    os.environ["SEGDEPLOY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("SEGDEPLOY_CACHE")
    if before is not None:
        os.environ["SEGDEPLOY_CACHE"] = before


@pytest.fixture(autouse=True)
def usual_log_level():
    """Commands and `SegModel` set how much is said, for the rest of their process."""
    yield
    logging.getLogger("segdeploy").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_config() -> str:
    """The YAML of the tiny run."""
    return TINY


@pytest.fixture(scope="session")
def tiny_table(tmp_path_factory) -> Path:
    """20 generated pictures of 80 x 112 with a split column."""
    from segdeploy.data.demo import generate

    return generate(tmp_path_factory.mktemp("tiny-data"), count=20, size=(80, 112))


@pytest.fixture(scope="session")
def tiny_run(tiny_table, tmp_path_factory) -> Path:
    """A run folder trained for eight epochs on the pictures."""
    from segdeploy.config import parse_config
    from segdeploy.data.table import Tables
    from segdeploy.train.loop import train

    return train(parse_config(TINY), Tables(dataset=tiny_table), tmp_path_factory.mktemp("tiny-runs"), device="cpu").run


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run, tiny_table, tmp_path_factory) -> Path:
    """The run's bundle, verified on the pictures."""
    from segdeploy.export.run import export_run

    return export_run(tiny_run, tmp_path_factory.mktemp("tiny-bundle") / "bundle", verify_table=tiny_table).bundle.path


@pytest.fixture
def cuda_device(monkeypatch):
    """A double of the CUDA device, behind `cuda.bindings.runtime`; what went wrong on it fails the test."""
    from cuda_double import Device

    device = Device()
    device.install(monkeypatch)
    yield device
    assert device.problems == []


@pytest.fixture(params=["10.16", "11.4"])
def tensorrt(request, cuda_device, monkeypatch):
    """A double of `tensorrt`, both majors in turn, on the double of the device: `.module`, `.faults`, `.device`."""
    from tensorrt_double import TensorRT

    library = TensorRT(request.param, cuda_device)
    monkeypatch.setitem(sys.modules, library.name, library.module)
    return library


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Distributions that are made up on the spot: a module and its metadata in a folder on sys.path.

    A function of (distribution, entry point, code): all that it installs goes when the test ends.
    """
    from segdeploy.plugin import manager, registry

    before = set(sys.modules)
    monkeypatch.delenv("SEGDEPLOY_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def to_path(distribution, entry_point, code, target=None, version="1.5", requires=(), folder=tmp_path):
        module = f"made_up_{distribution}"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(code)
        info = folder / f"{distribution}-{version}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[segdeploy]\n{entry_point} = {target or module}\n")
        return module

    def forget():
        manager.load.cache_clear()
        registry.catalogue.cache_clear()

    forget()
    yield to_path
    forget()
    for name in set(sys.modules) - before:
        if name.startswith("made_up_"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def chromium():
    """A browser; tests of one xdist group share it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_faults():
    """A function of a page that lists its faults.

    outside: what stands out of the window; covered: text of drawings under other text; contrast: text below 4.5 to 1.
    """
    code = (Path(__file__).parent / "pages" / "faults.js").read_text()

    def faults(page, *kinds):
        return {kind: page.evaluate(f"() => ({code}).{kind}()") for kind in kinds or ("outside", "covered", "contrast")}

    return faults
