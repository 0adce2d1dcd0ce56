"""A second witness beside the decomposition: a small U-Net that has learnt on synthetic defects what one looks like.

The decomposition knows what is normal *at this place*; on a stochastic texture no bank has that, and its residual is
the texture itself. The segmenter knows what a defect looks like *in this texture*: on normal frames with synthetic
defects pasted in it learns to tell the defect's pixels from the texture's, as the discriminative half of DRAEM does
(Zavrtanik 2021). Alone it would know only defects of the kinds it was shown; it therefore never makes an anomaly, but
weighs the residuals of the decomposition (``monitor.core.scoring.weigh``).
"""

from __future__ import annotations

from torch import Tensor

from monitor.core.bands import BANDS, BEYOND, bands
from monitor.core.tiles import Reach
from monitor.core.unet import UNet


class Segmenter(UNet):
    """Frames to the log-odds that a pixel belongs to a defect."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__(BANDS * channels, 1, widths)

    @property
    def seeing(self) -> Reach:
        """How far it sees."""
        return self.reach(BEYOND)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the log-odds (B, H, W) of frames (B, C, H, W), each side a multiple of 2^(stages - 1)."""
        return self.planes(bands(frames))[:, 0].contiguous()
