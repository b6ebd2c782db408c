"""Histograms against NumPy; ranges against onnxruntime's own calibrators."""

import contextlib
import io

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import calibrate

from segdeploy.errors import DataError, ExportError
from segdeploy.export import ranges
from segdeploy.export.graph import session_of
from segdeploy.export.ranges import Histogram, collect


def drawn(seed, count=4, size=20_000):
    random = np.random.default_rng(seed)
    return [(random.laplace(size=size) * (i + 1) + 0.3).astype(np.float32) for i in range(count)]


def counted(parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


@pytest.mark.parametrize("order", [1, -1])
def test_counts_are_numpys_in_whatever_order_values_come(order):
    parts = [part.astype(np.float64) for part in drawn(0)][::order]
    found = counted(parts)
    values = np.concatenate(parts)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.limit == 2 ** np.ceil(np.log2(np.abs(values).max()))
    expected, _ = np.histogram(values, len(found.counts), (-found.limit, found.limit))
    # Halves of the first parts were counted in bins that two times two make one of: no count moves.
    np.testing.assert_array_equal(found.counts, expected)


def test_minmax_is_the_least_and_the_largest():
    values = np.concatenate(drawn(1))
    found = counted(drawn(1))
    assert found.range("minmax") == (values.min(), values.max())


def test_percentile_is_numpys_to_a_bin():
    values = np.concatenate(drawn(2, size=200_000))
    found = counted([values])
    low, high = found.range("percentile")
    np.testing.assert_allclose((low, high), np.percentile(values, [0.005, 99.995]), atol=2 * found.limit / 4096)
    assert high < 0.9 * values.max()


def test_entropy_clips_where_onnxruntime_does():
    values = np.concatenate(drawn(3, size=100_000))
    low, high = counted([values]).range("entropy")
    limit = float(np.abs(values).max())
    hist, edges = np.histogram(values, 1024, (-limit, limit))
    theirs = calibrate.HistogramCollector("entropy", True, 1024, 256, None, "same")
    expected = theirs.get_entropy_threshold((hist, edges, values.min(), values.max(), limit), 256)
    assert high == -low
    assert high == pytest.approx(float(expected[1]), rel=0.15)
    assert high < 0.7 * limit


def test_values_on_one_side_keep_their_side():
    found = counted([np.abs(part) for part in drawn(4)])
    for method in ("minmax", "percentile", "entropy"):
        low, high = found.range(method)
        assert 0 <= low < 0.01 * high


def test_zeros_alone_have_an_empty_range():
    found = counted([np.zeros(9, np.float32)])
    for method in ("minmax", "percentile", "entropy"):
        assert found.range(method) == (0, 0)


def test_a_graphs_tensors_have_the_ranges_of_onnxruntimes_calibrator(toy, pictures, tmp_path):
    model = onnx.shape_inference.infer_shapes(toy())
    onnx.save(model, tmp_path / "model.onnx")

    class Reader(calibrate.CalibrationDataReader):
        left = [{"image": image} for image in pictures]

        def get_next(self):
            return self.left.pop(0) if self.left else None

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = calibrate.create_calibrator(
            str(tmp_path / "model.onnx"), augmented_model_path=str(tmp_path / "augmented.onnx")
        )
        theirs.collect_data(Reader())
        expected = theirs.compute_data()
    names = [name for name in expected if name in {o for n in model.graph.node for o in n.output}]
    assert len(names) > 20
    found = collect(model, names, pictures)
    for name in names:
        low, high = (float(np.squeeze(v)) for v in expected[name].range_value)
        assert found[name].range("minmax") == pytest.approx((low, high), rel=1e-5, abs=1e-6)


def test_no_images_and_values_without_end_are_refused(toy, pictures):
    with pytest.raises(DataError, match="found none"):
        collect(toy(), ["stem_out"], [])
    broken = toy()
    bias = next(c for c in broken.graph.initializer if c.name == "stem.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), "stem.bias"))
    with pytest.raises(ExportError, match="stem_out: takes values that are not finite"):
        collect(broken, ["stem_out"], pictures[:2])


def test_tensors_of_free_sides_are_as_many_at_once_as_those_of_fixed_ones(toy, monkeypatch):
    fixed, free = toy(size=(64, 96)), toy(size=("height", "width"))
    names = [name for node in fixed.graph.node for name in node.output][:-1]
    monkeypatch.setattr(ranges, "_AT_ONCE", 50_000)
    parts = list(ranges.in_parts(free, names, (1, 64, 96, 3)))
    assert parts == list(ranges.in_parts(onnx.shape_inference.infer_shapes(fixed), names, (1, 64, 96, 3)))
    values = session_of(fixed, names).run(None, {"image": np.zeros((1, 64, 96, 3), np.uint8)})
    sizes = dict(zip(names, (v.size for v in values), strict=True))
    assert [name for part in parts for name in part] == names
    sums = [sum(sizes[name] for name in part) for part in parts]
    assert max(sums) <= 50_000
    assert all(total + sizes[after[0]] > 50_000 for total, after in zip(sums, parts[1:], strict=False))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_remembered(bad):
    found = counted([np.float32([1, 2]), np.float32([0.5, bad]), np.float32([3, 4])])
    assert not (np.isfinite(found.low) and np.isfinite(found.high))
