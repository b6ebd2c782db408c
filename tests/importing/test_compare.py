"""The judgement whether two networks give the same logits."""

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.utils import logging as said

from segdeploy.errors import ModelError
from segdeploy.importing.compare import compare
from segdeploy.importing.huggingface import read_segformer
from segdeploy.importing.source import open_source

TINY = {"hidden_sizes": [8, 16, 20, 24], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 5, 3]}


@pytest.fixture(scope="module")
def faint(tmp_path_factory):
    """A SegFormer whose logits are small, and as segdeploy rebuilds it."""
    folder = tmp_path_factory.mktemp("faint")
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(SegformerConfig(**TINY, decoder_hidden_size=16)).save_pretrained(folder)
    return open_source(folder), read_segformer(folder)


def test_small_logits_are_compared_by_their_own_measure(faint):
    source, imported = faint
    segmenter = imported.segmenter()
    found = compare(source, segmenter, (64, 96))
    assert found.difference < 1e-6 < 1e-4 < found.largest < 0.1
    with torch.no_grad():
        segmenter.head.weight.mul_(1.01)
    with pytest.raises(ModelError, match=r"the logits differ by .* bring the network with --factory"):
        compare(source, segmenter, (64, 96))
    with torch.no_grad():
        segmenter.head.weight.zero_()
        segmenter.head.bias.zero_()
    with pytest.raises(ModelError, match="the logits differ by"):
        compare(source, segmenter, (64, 96))


def test_transformers_is_quiet_for_the_time_being(faint, capfd):
    source, imported = faint
    before = (said.is_progress_bar_enabled(), said.get_verbosity())
    compare(source, imported.segmenter(), (64, 96))
    assert capfd.readouterr() == ("", "")
    assert (said.is_progress_bar_enabled(), said.get_verbosity()) == before
