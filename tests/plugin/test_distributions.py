import sys
from importlib.metadata import version

import pytest

from segdeploy.plugin import distributions, manager
from segdeploy.plugin.manager import load

OURS = version("segdeploy")


def third_parties(kind="backend"):
    """Entry points of others than segdeploy: loaded, with their versions; and failures by distribution."""
    loaded = load(kind)
    owners = {name: o.version for name, o in loaded.owners.items() if not o.ours}
    return owners, {f.owner.distribution: f.reason for f in loaded.failures}


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ("segdeploy>=9", "segdeploy>=9"),
        ("segdeploy[train]>=9", "segdeploy>=9"),
        ("SegDeploy <0.1", "SegDeploy<0.1"),
        ("segdeploy>=9; python_version>='3'", "segdeploy>=9"),
    ],
)
def test_plugin_for_another_segdeploy_is_not_imported(install, need, said):
    module = install("newer", "backend.newer", "raise RuntimeError", requires=["numpy", need])
    install("zzz", "backend.zzz", "")
    owners, failures = third_parties()
    assert owners == {"backend.zzz": "1.5"}
    assert failures == {"newer": f"needs {said}, {OURS} is installed; pip install -U segdeploy newer"}
    assert module not in sys.modules


@pytest.mark.parametrize(
    "need",
    [
        "segdeploy",
        f"segdeploy>={OURS}",
        f"segdeploy=={OURS}",
        "segdeploy @ https://example.org/segdeploy.whl",
        "segdeploy>=9; extra == 'future'",
        "segdeploy>=9; python_version<'3'",
        "segdeploy>=9; nonsense",
        "segdeploy what",
        "no_such_package>=2",  # another may stand in for it
        "numpy<1",
        "numpy>=99; extra == 'fast'",
    ],
)
def test_plugin_that_may_work_is_loaded(install, need):
    install("good", "backend.good", "", requires=[need])
    assert third_parties() == ({"backend.good": "1.5"}, {})


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        ("lib>=2", "needs lib>=2, 1.4 is installed; pip install 'lib>=2' (ImportError: cannot import name 'new'"),
        ("gone>=2", "needs gone>=2, which is not installed; pip install 'gone>=2' (ImportError: "),
        ("gone>=2; extra == 'x'", "ImportError: cannot import name 'new'"),
        ("lib>=1", "ImportError: cannot import name 'new'"),
    ],
)
def test_failed_import_is_explained_by_the_requirement_that_is_not_met(install, need, reason):
    install("lib", "command.lib", "", version="1.4")
    install("bad", "backend.bad", "from made_up_lib import new", requires=["numpy>=1", need])
    _, failures = third_parties()
    assert failures["bad"].startswith(reason)


def test_other_errors_are_not_blamed_on_requirements(install):
    install("bad", "backend.bad", "1 / 0", requires=["gone>=2"])
    assert third_parties()[1] == {"bad": "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize(
    ("installed", "met"),
    [("2.0.dev3", True), ("2.1rc1", True), ("2.0+cu13", True), ("from-a-fork", True), ("1.9", False), ("3.0a1", False)],
)
def test_pre_releases_meet_the_bounds_of_their_release(install, installed, met):
    install("lib", "command.lib", "", version=installed)
    install("bad", "backend.bad", "import no_such_package", requires=["lib>=2,<3"])
    reason = third_parties()[1]["bad"]
    assert reason.startswith("ModuleNotFoundError" if met else f"needs lib<3,>=2, {installed} is installed")


def test_pre_release_that_is_asked_for_by_name(install):
    install("lib", "command.lib", "", version="2.1rc1")
    install("bad", "backend.bad", "import no_such_package", requires=["lib==2.1rc1"])
    assert third_parties()[1]["bad"].startswith("ModuleNotFoundError")


def test_first_on_path_wins_as_for_imports(install, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "first")
    install("twice", "backend.twice", "raise RuntimeError", version="3.0", folder=tmp_path / "second")
    install("twice", "backend.twice", "", version="2.0", folder=tmp_path / "first")
    sys.path.append(str(tmp_path / "second"))
    try:
        assert third_parties() == ({"backend.twice": "2.0"}, {})
    finally:
        sys.path.remove(str(tmp_path / "second"))


@pytest.mark.parametrize("order", [("1.9", "1.10"), ("1.10", "1.9"), ("odd", "1.10")])
def test_old_metadata_beside_new_are_passed_over(install, tmp_path, order):
    for number in order:
        install("twice", f"backend.v{number}", "", version=number)
    assert third_parties() == ({"backend.v1.10": "1.10"}, {})


def test_new_version_without_plugins_hides_the_old_ones(install, tmp_path):
    install("twice", "backend.old", "", version="1.0")
    install("twice", "backend.new", "", version="2.0")
    (tmp_path / "twice-2.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nx = y:z\n")
    assert third_parties() == ({}, {})


def test_half_removed_distribution_is_no_distribution(install, tmp_path):
    install("whole", "backend.whole", "")
    (tmp_path / "whole-1.5.dist-info").rename(tmp_path / "~hole-1.5.dist-info")
    assert third_parties() == ({}, {})


def test_two_distributions_with_one_entry_point_name(install):
    for name in ("ddd", "bbb", "aaa", "ccc"):  # the folder's own order is anything
        install(name, "backend.same", "")
    loaded = load("backend")
    assert loaded.owners["backend.same"].distribution == "aaa"
    assert [f.owner.distribution for f in loaded.failures] == ["bbb", "ccc", "ddd"]
    for failure in loaded.failures:
        assert failure.reason == "the entry point 'backend.same' is taken by aaa 1.5 (backend.same)"


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        (b"Metadata-Version: 2.1\nName: odd\n", ("odd", "unknown")),
        (b"Metadata-Version: 2.1\nVersion: 1\n", ("unknown", "1")),
        (b"", ("unknown", "unknown")),
        (b"\xff\xfe", ("unknown", "unknown")),
        (None, ("unknown", "unknown")),
    ],
)
def test_metadata_that_say_little(install, tmp_path, metadata, named):
    install("odd", "backend.odd", "")
    file = tmp_path / "odd-1.5.dist-info" / "METADATA"
    file.unlink() if metadata is None else file.write_bytes(metadata)
    loaded = load("backend")
    assert (loaded.owners["backend.odd"].distribution, loaded.owners["backend.odd"].version) == named
    assert loaded.failures == ()


@pytest.mark.parametrize("points", [b"[segdeploy]\nbackend.odd\n", b"[segdeploy]\nbackend.odd = \xff\n"])
def test_list_of_entry_points_that_cannot_be_read(install, tmp_path, points):
    install("good", "backend.good", "")
    install("odd", "backend.odd", "")
    (tmp_path / "odd-1.5.dist-info" / "entry_points.txt").write_bytes(points)
    owners, failures = third_parties()
    assert owners == {"backend.good": "1.5"}
    assert failures["odd"].startswith("cannot be read: ")
    install("neighbour", "x", "")  # no plugin, and unreadable: not our affair
    (tmp_path / "neighbour-1.5.dist-info" / "entry_points.txt").write_bytes(b"[other]\nx\n")
    manager.load.cache_clear()
    assert third_parties() == (owners, failures)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("My.Pack_age", {"backend.a", "backend.b"}),
        ("my-pack-age,backend.c", {"backend.a", "backend.b", "backend.c"}),
        ("backend.a", {"backend.a"}),
        ("segdeploy", set()),
    ],
)
def test_variable_takes_distributions(install, tmp_path, monkeypatch, caplog, value, expected):
    module = install("my_pack_age", "backend.a", "")
    (tmp_path / "made_up_b.py").write_text("")
    points = f"[segdeploy]\nbackend.a = {module}\nbackend.b = made_up_b\n"
    (tmp_path / "my_pack_age-1.5.dist-info" / "entry_points.txt").write_text(points)
    install("c", "backend.c", "")
    monkeypatch.setenv("SEGDEPLOY_PLUGINS", value)
    owners, failures = third_parties()
    assert set(owners) == expected
    assert set(failures.values()) <= {"left out by SEGDEPLOY_PLUGINS"}
    assert "backend.onnxruntime" in load("backend").owners
    assert caplog.text == ""


def test_name_in_variable_that_matches_nothing_is_said_once(install, monkeypatch, caplog):
    install("known", "backend.known", "")
    install("other", "encoder.other", "")
    monkeypatch.setenv("SEGDEPLOY_PLUGINS", "backend.knwon, encoder.other ,zzzzzz")
    for kind in ("backend", "command"):
        load(kind)
    first, second = (r.getMessage().removeprefix("SEGDEPLOY_PLUGINS: ") for r in caplog.records)
    assert first == "no entry point or distribution is named 'backend.knwon'; did you mean 'backend.known'?"
    assert second == "no entry point or distribution is named 'zzzzzz'; segdeploy plugins list says what there is"


def test_the_backport_of_importlib_changes_nothing(install, tmp_path, monkeypatch):
    """importlib_metadata, which mlflow and others import, takes the standard library's place as a finder."""
    backport = pytest.importorskip("importlib_metadata")
    install("odd", "backend.odd", "")
    for content in (b"Metadata-Version: 2.1\nName: odd\n", b"", None):
        file = tmp_path / "odd-1.5.dist-info" / "METADATA"
        file.unlink() if content is None else file.write_bytes(content)
        (found,) = backport.distributions(path=[str(tmp_path)])
        assert distributions._named(found) == ("odd" if content else "unknown", "unknown")
