"""The lists are held against the committed table of the probe; tests/contract holds the promise in onnxruntime."""

import csv
from pathlib import Path

import pytest

from segdeploy.encoders.timm import TimmEncoder
from segdeploy.encoders.timm_sizes import has_free_sizes, multiple_of
from segdeploy.errors import ConfigError

(TABLE,) = (Path(__file__).parents[2] / "benchmarks" / "results").glob("timm_features_*.csv")


def rows():
    with TABLE.open(newline="") as handle:
        return [row for row in csv.DictReader(handle) if row["how"] == "measured"]


def is_right(row):
    """Also where it took too long, and every model of its kind that did not is right."""
    kin = row["note"].partition("of the same kind: ")[2].split(", ")
    return row["dynamic"] == "yes" or (row["dynamic"] == "?" and all(word.startswith("yes in ") for word in kin))


def test_free_sizes_are_promised_where_every_measured_model_keeps_them():
    promised = [row for row in rows() if has_free_sizes(row["name"]) and row["sizes"] == "any"]
    assert len(promised) > 120
    assert [row["name"] for row in promised if not is_right(row)] == []


def test_what_took_too_long_is_promised_as_its_kind_allows():
    with TABLE.open(newline="") as handle:
        listed = [row for row in csv.DictReader(handle) if row["sizes"]]
    assert [row["name"] for row in listed if not is_right(row) and has_free_sizes(row["name"])] == []
    assert not has_free_sizes("resnetaa50d")
    assert has_free_sizes("resnet50d")


def test_everything_that_timm_listed_was_probed():
    with TABLE.open(newline="") as handle:
        listed = list(csv.DictReader(handle))
    assert len(listed) > 1300
    assert {row["how"] for row in listed} == {"measured", "no pyramid"}


@pytest.mark.parametrize(
    ("name", "multiple"), [("hrnet_w18_small", 32), ("dla34", 32), ("tresnet_m", 4), ("resnet18", 1)]
)
def test_multiples(name, multiple):
    assert multiple_of(name) == multiple


def test_size_between_multiples_is_refused_with_those_that_work():
    import torch

    encoder = TimmEncoder("hrnet_w18_small")
    assert (encoder.size_multiple, encoder.dynamic_size) == (32, False)
    with pytest.raises(ConfigError, match=r"cannot take 70x64 images.* multiples of 32; .* work: 64x64, 96x64"):
        encoder(torch.zeros(1, 3, 64, 70))
    assert len(encoder.eval()(torch.zeros(1, 3, 64, 96))) == len(encoder.features)
