"""Random changes of a whole batch on its device, image and mask by the same geometry.

All geometric steps become one affine map per sample and one `grid_sample`: bilinear for the image, nearest for the
mask. What lies outside the picture is the mean colour and is ignored by the loss. The other steps change what came out
of it, in the order in which they are listed.

Why not torchvision's v2 transforms on tv_tensors, which change image and mask alike, too? They draw one set of values
for whatever they are given, so that a batch becomes a loop over its samples; each of their geometric steps samples the
picture anew, which costs time and blurs; they draw from torch's global generator, and an exact resume needs one of its
own; and their automatic mixtures refuse masks. Here every sample of the batch has values of its own in one pass, and
nothing waits for the device. What each step gives at fixed values is tested to be what v2 gives on tv_tensors, and for
the automatic mixtures v2's own functions are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segdeploy.config.augmentation import GEOMETRIC, AutoAugmentation, CopyPaste, Crop, CutMix
from segdeploy.data.augment_auto import draw_operations, moves_pixels, recolor_each, warp_of
from segdeploy.data.augment_color import recolor
from segdeploy.data.augment_geometry import affine_maps, draw_moves, grid_of, sample_images, sample_labels
from segdeploy.data.augment_mix import copy_paste, cut_mix, pasted_classes
from segdeploy.data.augment_window import choose_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from segdeploy.config.augmentation import Augmentation
    from segdeploy.data.augment_auto import Operation
    from segdeploy.data.scan import ScanReport
    from segdeploy.model.spec import Preprocessing


class Augment:
    """Configured steps as a callable on batches.

    Args:
        steps: the configuration's list; the order of its geometric steps does not matter.
        preprocessing: for mean and standard deviation.
        report: what the training masks hold; steps that look for rare or named classes need it.

    Raises:
        ConfigError: see `pasted_classes`.
        ValueError: a step needs `report`, and there is none.
    """

    def __init__(
        self, steps: Sequence[Augmentation], preprocessing: Preprocessing, report: ScanReport | None = None
    ) -> None:
        self.steps = steps
        self.mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self.moves = any(isinstance(step, GEOMETRIC) for step in steps)
        self.changes = not all(isinstance(step, GEOMETRIC) for step in steps)
        self.crop = next((s for s in steps if isinstance(s, Crop)), None)
        needy = [
            s.type for s in steps if isinstance(s, CopyPaste) or (isinstance(s, Crop) and s.rare_class_probability)
        ]
        if needy and report is None:
            raise ValueError(f"{needy[0]} needs the report on the training masks")
        self.pixels = None if report is None else torch.from_numpy(report.pixels)
        self.pasted = {s: pasted_classes(s, report) for s in steps if isinstance(s, CopyPaste) and report is not None}

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            masks: (N, H, W) uint8, 255 = ignore.
            generator: on the CPU; all randomness comes from it.

        Returns:
            (N, 3, h, w) float32, normalised, and (N, h, w) int64; h and w are the crop's, or H and W.
        """
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        count, height, width, _ = images.shape
        drawn = {
            place: draw_operations(step, count, (height, width), generator)
            for place, step in enumerate(self.steps)
            if isinstance(step, AutoAugmentation)
        }
        # Centred on the mean first, so that grid_sample's zero padding is the mean colour.
        x = images.permute(0, 3, 1, 2).float().div_(255).sub_(mean)
        x, y = self._move(x, masks, list(drawn.values()), generator)
        if self.changes:
            x.add_(mean)
            for place, step in enumerate(self.steps):
                x, y = self._change(x, y, step, drawn.get(place, []), generator)
            x = x.sub_(mean)
        return x.div_(std), y

    def _move(
        self, x: Tensor, masks: Tensor, drawn: Sequence[Sequence[Sequence[Operation]]], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The geometric steps, and what is geometric of the operations that were drawn for each automatic mixture."""
        picture = (masks.shape[1], masks.shape[2])
        operations = [[o for one in of_sample for o in one] for of_sample in zip(*drawn, strict=True)]
        if not self.moves and not moves_pixels(operations):
            return x, masks.long()
        moves = draw_moves(self.steps, len(x), generator, warp_of(operations, picture) if operations else None)
        shift_y, shift_x = choose_windows(self.crop, self.pixels, moves, masks, generator)
        size = picture if self.crop is None else (self.crop.height, self.crop.width)
        theta = affine_maps(moves.to(shift_y.device), picture, size, shift_y, shift_x)
        grid = grid_of(theta.to(x.device), size)
        return sample_images(x, grid), sample_labels(masks, grid).long()

    def _change(
        self, x: Tensor, y: Tensor, step: Augmentation, drawn: Sequence[Sequence[Operation]], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """One step on (N, 3, h, w) images on the scale 0..1 and their labels; geometric ones are done."""
        if isinstance(step, GEOMETRIC):
            return x, y
        if isinstance(step, CutMix):
            return cut_mix(x, y, step, generator)
        if isinstance(step, CopyPaste):
            return copy_paste(x, y, step, self.pasted[step], generator)
        if isinstance(step, AutoAugmentation):
            return recolor_each(x, drawn), y
        return recolor(x, step, generator), y
