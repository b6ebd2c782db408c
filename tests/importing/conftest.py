"""Networks of segmentation_models.pytorch with weights that no fresh network has, in its own format."""

import pytest
import segmentation_models_pytorch as smp
import torch


def unlike_fresh(module):
    """Weights and running statistics such that a missing or misplaced one shows."""
    with torch.no_grad():
        for name, x in (*module.named_parameters(), *module.named_buffers()):
            if x.ndim == 1 and x.is_floating_point():
                x.uniform_(0.5, 1.5) if "var" in name else x.add_(0.2 * torch.randn_like(x))
    return module.eval()


@pytest.fixture
def saved(tmp_path):
    """Call it with an architecture, an encoder and options: the network and the folder of its save_pretrained."""

    def save(architecture, encoder, **options):
        torch.manual_seed(0)
        network = unlike_fresh(getattr(smp, architecture)(encoder, encoder_weights=None, **options))
        network.save_pretrained(tmp_path / "original")
        return network, tmp_path / "original"

    return save


@pytest.fixture(scope="session")
def unet(tmp_path_factory):
    """The folder of a small U-Net with two classes; not to be changed."""
    folder = tmp_path_factory.mktemp("unet")
    channels = (32, 24, 16, 16, 8)
    network = smp.Unet("tu-mobilenetv3_small_050", encoder_weights=None, decoder_channels=channels, classes=2)
    network.save_pretrained(folder)
    return folder
