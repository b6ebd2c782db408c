"""segdeploy export: what stays free in the graph, by the command's own words."""

import re

import onnx
import pytest
from engines import real

from segdeploy.cli import main


@pytest.fixture
def export(tiny_run, tmp_path, capsys):
    """A function that exports the tiny run and gives the exit code, what was said, and the bundle's folder."""

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["export", str(tiny_run), "-o", str(tmp_path / "bundle"), *map(str, words)])
        said = capsys.readouterr()
        return caught.value.code, said.out + said.err, tmp_path / "bundle"

    return call


def test_height_and_width_stay_free_and_the_other_size_is_told(export, tiny_table):
    code, said, bundle = export("--dynamic", "batch,height,width", "--verify", tiny_table)
    assert code == 0
    assert "at 120x96: " in said
    (image,) = onnx.load(bundle / "model.onnx").graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", "height", "width", 3]


def test_a_bundle_that_is_replaced_is_told(export, tiny_run, tiny_table):
    assert "replaced:" not in export("--precision", "fp16", "--verify", tiny_table)[1]
    code, said, bundle = export()
    assert code == 0
    assert f"replaced: {bundle} held fp32, fp16, verified\n" in said
    assert f"now: segdeploy benchmark {bundle} --dataset {tiny_run / 'splits' / 'test.csv'}\n" in said


def test_other_words_are_refused(export):
    code, said, bundle = export("--dynamic", "width")
    assert code == 2
    assert "'batch,height,width', 'height,width'" in said
    assert not bundle.exists()


@real
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--compute-capability", "sm86,sm999"), "--compute-capability sm999: .*has no such target; it knows sm75"),
        (
            ("--hardware-compatible", "ampere_plus"),
            "--hardware-compatible ampere_plus: .*does not take it; leave it out",
        ),
        (("--height", "32,64,64"), "its height is fixed at 64, .*or export with --dynamic batch,height,width"),
        (
            ("--dynamic", "height,width", "--height", "32,32,48"),
            r"model takes 64 x 96 .* and no profile holds that size",
        ),
    ],
)
def test_what_the_engine_cannot_have_is_refused_before_the_graph_is_made(export, words, reason):
    code, said, bundle = export("--trt", "--trt-flavour", "rtx", *words)
    assert code == 2
    assert re.search(reason, said)
    assert "writing the graph" not in said
    assert not bundle.exists()
