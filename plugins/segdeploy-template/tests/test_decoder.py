"""What the conformance kit cannot know: the values. Against a plain loop."""

import torch
import torch.nn.functional as F
from segdeploy_template.decoder import SegdeployTemplate, SegdeployTemplateConfig

from segdeploy.plugin import FeatureMap


def test_sum_of_all_levels():
    torch.manual_seed(0)
    features = tuple(FeatureMap(channels=c, stride=s) for c, s in [(3, 2), (5, 4), (7, 8)])
    decoder = SegdeployTemplate(SegdeployTemplateConfig(width=8), features).eval()
    maps = tuple(torch.randn(2, f.channels, -(-33 // f.stride), -(-47 // f.stride)) for f in features)
    expected = torch.zeros(2, 8, 1, 1)
    for conv, level in zip(reversed(decoder.project), reversed(maps), strict=True):
        before = F.interpolate(expected, size=level.shape[2:], mode="bilinear", align_corners=False)
        expected = before + torch.einsum("oc,nchw->nohw", conv.weight[:, :, 0, 0], level) + conv.bias.view(1, -1, 1, 1)
    assert torch.allclose(decoder(maps), decoder.smooth(expected), atol=1e-5)
    assert decoder.out == FeatureMap(channels=8, stride=2)
