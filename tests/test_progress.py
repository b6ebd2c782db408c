import re
import sys

import pytest

from segdeploy import progress as module
from segdeploy.progress import duration, progress, quiet, stages


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7620, "2 h 7 min")]
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_a_log_gets_a_line_when_some_time_has_passed(capsys, monkeypatch):
    with progress("reading") as step:
        step(1, 2)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(module, "_EVERY", 0)
        step(2, 2)
    assert re.fullmatch(r"reading: 2/2  \d s\n", capsys.readouterr().err)


def test_a_log_gets_each_stage_once_and_its_steps_when_some_time_has_passed(capsys, monkeypatch):
    with stages() as step:
        step("timing", 0, 30)
        step("timing", 1, 30)
        step("cold starts", 0, 3)
        assert capsys.readouterr().err == "timing ...\ncold starts ...\n"
        monkeypatch.setattr(module, "_EVERY", 0)
        step("cold starts", 1, 3)
    assert re.fullmatch(r"cold starts: 1/3  \d s\n", capsys.readouterr().err)


def test_a_log_gets_the_end_once(capsys, monkeypatch):
    with progress("timing") as step:
        now = module.time.monotonic()
        monkeypatch.setattr(module.time, "monotonic", lambda: now + 11)
        for _ in range(4):
            step(2, 2)
    assert re.fullmatch(r"timing: 2/2  1\d s\n", capsys.readouterr().err)


def test_quiet_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(module, "_EVERY", 0)
    with quiet(), progress("reading") as step:
        step(1, 1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with stages() as step:
        step("timing", 0, 30)
        step("timing", 30, 30)
    drawn = capsys.readouterr().err
    assert "..." not in drawn
    assert "timing" in drawn
    assert "30/30" in drawn
