import re
import sys
import threading
import warnings

import pytest
from pydantic import Field, ValidationError

from segdeploy.plugin import Section, registry
from segdeploy.plugin import attempt as attempts
from segdeploy.plugin.distributions import Owner
from segdeploy.plugin.manager import load

STRANGER = Owner(entry_point="backend.x", distribution="good", version="1.5")
OURS = Owner(entry_point="backend.x", distribution="segdeploy", version="1")

BACKEND = """
from segdeploy.plugin import Availability, BackendPlugin, hookimpl

def available():
    return Availability(ok=True)

@hookimpl
def segdeploy_register_backends(register):
    {before}
    register(BackendPlugin(name="made-up", summary="none", artifact="onnx", available=available, open=print))
"""


def test_prints_go_to_standard_error(install, capfd):
    install("loud", "backend.loud", "print('at import')\n" + BACKEND.format(before="print('in the hook')"))
    assert "made-up" in registry.catalogue("backend").plugins
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "at import\nin the hook\n")


def test_filters_of_warnings_are_put_back(install):
    before = list(warnings.filters)
    silence = "import warnings; warnings.simplefilter('ignore')"
    install("rude", "backend.rude", silence + "\n" + BACKEND.format(before=silence))
    assert "made-up" in registry.catalogue("backend").plugins
    assert list(warnings.filters) == before


@pytest.mark.parametrize("before", ["time.sleep(0.05)", "pass"])
@pytest.mark.parametrize("at_import", ["time.sleep(0.05)", "pass"])
def test_slow_plugin_is_named_once(install, monkeypatch, caplog, before, at_import):
    slow = [before, at_import].count("time.sleep(0.05)")
    monkeypatch.setattr(attempts, "SLOW_SECONDS", 0.04 if slow else 9)  # a busy machine may take 0.04 s for nothing
    install("slow", "backend.slow", f"import time; {at_import}\n" + BACKEND.format(before=before))
    for _ in range(2):
        known = registry.catalogue("backend")
    assert known.seconds["backend.slow"] >= 0.05 * slow
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == bool(slow)
    if slow:
        assert said[0].startswith("plugin slow 1.5 (backend.slow) took 0.")
        assert "inside functions" in said[0]
        assert "SEGDEPLOY_PLUGINS= none" in said[0]


def test_ours_are_not_called_slow(monkeypatch, caplog):
    monkeypatch.setattr(attempts, "SLOW_SECONDS", 0.0)
    registry.catalogue.cache_clear()
    registry.catalogue("backend")
    attempts.warn_if_slow(OURS, 9.0)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("place", "doing"), [("import", "being imported"), ("hook", "being registered"), ("ask", "looking for its engine")]
)
def test_plugin_that_hangs_is_named_while_it_does(install, monkeypatch, caplog, place, doing):
    monkeypatch.setattr(attempts, "HANG_SECONDS", 0.05)
    named = threading.Event()  # the plugin hangs until it is named, however long that takes on a busy machine
    monkeypatch.setattr(attempts, "named", named, raising=False)
    wait = "from segdeploy.plugin import attempt; assert attempt.named.wait(60)"
    code = BACKEND.format(before=wait if place == "hook" else "pass")
    code = code.replace("def available():", "def available():\n    " + (wait if place == "ask" else "pass"))
    install("stuck", "backend.stuck", (wait if place == "import" else "") + code)
    with caplog.filtering(lambda record: f"still {doing}" in record.getMessage() and not named.set()):
        assert registry.backend("made-up").available().ok
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith(f"plugin stuck 1.5 (backend.stuck) is still {doing} after 0.05 s; SEGDEPLOY_PLUGINS=a,b")


def test_failure_keeps_the_traceback():
    def call():
        raise ValueError("one\ntwo")

    seconds, failure = attempts.attempt(STRANGER, "x", call)
    assert seconds >= 0
    assert failure.reason == "ValueError: one"
    assert failure.detail.startswith("Traceback")
    assert failure.detail.endswith("ValueError: one\ntwo\n")
    assert attempts.attempt(STRANGER, "x", lambda: None)[1] is None
    assert sys.stdout is not sys.stderr


def test_pydantics_first_mistake_is_named():
    class Config(Section):
        width: int = Field(default=4, ge=8, validate_default=True)

    with pytest.raises(ValidationError) as caught:
        Config()
    assert attempts.one_line(caught.value) == "width: Input should be greater than or equal to 8, found 4"


@pytest.mark.parametrize("owner", [STRANGER, OURS])
def test_interrupt_is_the_users(owner):
    def call():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempts.attempt(owner, "x", call)


def test_trace_says_who_registered_what(install, monkeypatch, capsys):
    monkeypatch.setenv("SEGDEPLOY_TRACE_PLUGINS", "1")
    install("good", "backend.good", BACKEND.format(before="pass"))
    install("bad", "backend.bad", "1 / 0")
    install("half", "backend.half", BACKEND.format(before="raise ValueError('no')"))
    registry.catalogue("backend")
    said = capsys.readouterr().err
    assert re.search(r"good 1\.5 \(backend\.good\) was imported in \d+\.\d\d s", said)
    assert "good 1.5 (backend.good) registered the backend 'made-up'" in said
    assert "bad 1.5 (backend.bad) was not loaded: ZeroDivisionError: division by zero" in said
    assert "half 1.5 (backend.half) failed: ValueError: no" in said
    assert said.count("segdeploy_register_backends [hook]") == len(load("backend").owners)
