"""segdeploy export: what stays free in the graph, by the command's own words."""

import onnx
import pytest

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


def test_other_words_are_refused(export):
    code, said, bundle = export("--dynamic", "width")
    assert code == 2
    assert "'batch,height,width', 'height,width'" in said
    assert not bundle.exists()
