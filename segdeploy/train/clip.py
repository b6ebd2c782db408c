"""Limits on the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.utils import clip_grad_norm_, clip_grad_value_

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from segdeploy.config.optimizer import GradientClipping


def clip(parameters: Iterable[Tensor], config: GradientClipping) -> Tensor | None:
    """Shorten the gradients of `parameters` in place: all together, then each by itself, then each number.

    Returns:
        The L2 norm of all gradients before that, a scalar on their device; None without `clipglobalnorm`.
    """
    learning = [p for p in parameters if p.grad is not None]
    norm = None
    if config.clipglobalnorm is not None:
        norm = clip_grad_norm_(learning, config.clipglobalnorm)
    if config.clipnorm is not None:
        for parameter in learning:
            clip_grad_norm_([parameter], config.clipnorm)
    if config.clipvalue is not None:
        clip_grad_value_(learning, config.clipvalue)
    return norm
