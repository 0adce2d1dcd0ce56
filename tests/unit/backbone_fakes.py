"""A backbone without weights: local brightness, contrast and slopes of the frame at each stride; and a timm of it."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional


class PooledPixels:
    """``offset`` is added to every feature: real ones need not be centred on zero."""

    name = "pooled-pixels"

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def features(self, frames: Tensor) -> dict[int, Tensor]:
        grey = frames.mean(dim=1, keepdim=True)
        across = functional.pad(grey.diff(dim=3), (0, 1)).abs()
        down = functional.pad(grey.diff(dim=2), (0, 0, 0, 1)).abs()
        seen = torch.cat([grey, grey.square(), across, down], dim=1)  # (B, 4, H, W)
        return {stride: functional.avg_pool2d(seen, stride) * stride + self.offset for stride in (4, 8, 16)}

    def size_bytes(self) -> int:
        return 100


class _Network(nn.Module):
    """What timm makes with ``features_only``."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = strides
        self.feature_info = SimpleNamespace(reduction=lambda: list(strides))

    def forward(self, frames: Tensor) -> list[Tensor]:
        seen = PooledPixels().features(frames)
        return [seen[stride] for stride in self.strides]


def fake_timm() -> ModuleType:
    """Return a timm that knows the network ``tiny`` alone."""

    def create_model(
        model: str, *, pretrained: bool, features_only: bool, out_indices: list[int] | None = None
    ) -> _Network:
        del pretrained
        assert features_only
        if model != "tiny":
            msg = f"Unknown model ({model})"
            raise RuntimeError(msg)
        strides = (2, 4, 8, 16, 32)
        return _Network(strides if out_indices is None else tuple(strides[index] for index in out_indices))

    module = ModuleType("timm")
    seen = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    module.create_model = create_model  # type: ignore[attr-defined]
    module.data = SimpleNamespace(resolve_model_data_config=lambda _: seen)  # type: ignore[attr-defined]
    return module
