from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.denoiser import DenoisingPrior
from monitor.core.folding import for_inference
from monitor.core.inspector import empty_bank, explain, suspect
from monitor.core.networks import Networks
from monitor.core.per_frame import per_frame
from monitor.core.prior import BankPrior, MeanPrior, Prior, Seen
from monitor.core.segmenter import Segmenter
from monitor.core.tiles import TILE, Reach, per_tile, tiled
from schemas.artifacts import Architecture, InputSpec

NETWORKS = ("encoder", "decoder", "autoencoder", "segmenter", "denoiser")
FRAMES = [(1, 160, 240), (3, 240, 144), (1, 16, 400)]


@dataclass(frozen=True, slots=True)
class Case:
    """A network, how far it says it sees, and something to show it."""

    network: Callable[[Tensor], Tensor]
    reach: Reach
    maps: Tensor


def enliven(network: nn.Module) -> None:
    """Give a network weights under which all it sees matters, and a normalisation that is none by default."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0.0, 0.3)
                layer.running_var.uniform_(0.5, 2.0)
                layer.weight.uniform_(0.7, 1.5)
                layer.bias.normal_(0.0, 0.3)
            elif isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)


def make_networks(architecture: Architecture, seed: int = 0) -> tuple[PatchAutoencoder, Segmenter, DenoisingPrior]:
    torch.manual_seed(seed)
    channels = architecture.input.channels
    made = (
        PatchAutoencoder(architecture),
        Segmenter(channels, architecture.segmenter),
        DenoisingPrior(architecture),
    )
    for network in made:
        enliven(network)
        network.requires_grad_(requires_grad=False)
    autoencoder, segmenter, denoiser = made
    return for_inference(autoencoder), for_inference(segmenter), denoiser.for_inference()


def make_case(
    name: str,
    shape: tuple[int, int, int],
    widths: tuple[int, ...] = (8, 8, 16, 16),
    stages: tuple[int, ...] = (8, 8, 8, 8),
    seed: int = 0,
) -> Case:
    channels, height, width = shape
    spec = InputSpec(height=height, width=width, channels=3 if channels == 3 else 1)
    architecture = Architecture(input=spec, widths=widths, segmenter=stages)
    autoencoder, segmenter, denoiser = make_networks(architecture, seed)
    frames = torch.rand(2, channels, height, width)
    p1, p2, p3 = architecture.latent_shape
    # None of them is clamped here: what is clamped away would not be compared.
    cases = {
        "encoder": lambda: Case(autoencoder.encode, autoencoder.encoding, frames),
        "autoencoder": lambda: Case(
            lambda maps: autoencoder.decoder(autoencoder.encode(maps)), autoencoder.rebuilding, frames
        ),
        "decoder": lambda: Case(autoencoder.decoder, autoencoder.decoding, torch.randn(2, p3, p1, p2)),
        "denoiser": lambda: Case(denoiser, denoiser.seeing, frames),
        "segmenter": lambda: Case(segmenter, segmenter.seeing, frames),
    }
    return cases[name]()


@torch.inference_mode()
def seam(case: Case, tile: int, reach: Reach | None = None) -> float:
    """Return the largest difference of the tiled result from the whole frame's, in units of what is largest there."""
    whole = case.network(case.maps)
    pieced = per_tile(case.network, case.maps, reach or case.reach, tile)
    assert pieced.shape == whole.shape
    return float((pieced - whole).abs().max() / whole.abs().max())


@pytest.mark.parametrize("tile", [48, 80, 112])
@pytest.mark.parametrize("shape", FRAMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_what_the_whole_frame_gives(name: str, shape: tuple[int, int, int], tile: int) -> None:
    assert seam(make_case(name, shape), tile) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_a_halo_one_cell_too_small_leaves_a_seam(name: str) -> None:
    case = make_case(name, (1, 160, 240))
    assert seam(case, 80, replace(case.reach, halo=case.reach.halo - case.reach.step)) > 1e-4


def test_the_default_networks_see_as_far_as_was_counted_by_hand() -> None:
    architecture = Architecture(input=InputSpec(height=64, width=64, channels=1), widths=(16, 32, 64, 128))
    autoencoder = PatchAutoencoder(architecture)
    # 1 + 2 + 4 + 8 pixels of the four convolutions; as many, and one of the last, make a cell of the latent map.
    assert autoencoder.encoding == Reach(step=16, halo=16, leaving=16)
    assert autoencoder.decoding == Reach(step=16, halo=16, entering=16)
    # Up: 2, of which half is 1, 3, 2, 4, 2 eighths; down: 4, 8, 10, 20, 22, 44, 46 pixels; and 8 of the bands.
    assert Segmenter(1, architecture.segmenter).seeing == Reach(step=8, halo=56)
    assert DenoisingPrior(architecture).seeing == Reach(step=8, halo=56)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NETWORKS),
    cells=st.tuples(st.integers(4, 16), st.integers(4, 16)),
    tile=st.integers(8, 96),
    depth=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_whatever_the_sizes_there_is_no_seam(
    name: str, cells: tuple[int, int], tile: int, depth: int, seed: int
) -> None:
    shape = (1, 8 * cells[0], 8 * cells[1])
    case = make_case(name, shape, widths=(4,) * depth, stages=(4,) * (depth + 1), seed=seed)
    assert seam(case, tile) < 1e-5


@settings(max_examples=40, deadline=None)
@given(sides=st.tuples(st.integers(1, 60), st.integers(1, 60)), tile=st.integers(16, 300))
def test_no_tile_is_larger_than_asked_with_its_halo(sides: tuple[int, int], tile: int) -> None:
    reach, shown = Reach(step=16, halo=32), []

    def look(maps: Tensor) -> Tensor:
        shown.append(maps.shape[-2:])
        assert maps.is_contiguous()
        return maps

    frames = torch.rand(1, 1, 16 * sides[0], 16 * sides[1])
    assert torch.equal(per_tile(look, frames, reach, tile), frames)
    largest = -(-tile // 16) * 16 + 64
    assert all(side <= max(largest, tile) for size in shown for side in size)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_frame_gives_the_same_result_alone_or_in_a_batch(name: str) -> None:
    case = make_case(name, (1, 160, 96))

    def look(maps: Tensor) -> Tensor:
        return per_frame(lambda frame: per_tile(case.network, frame, case.reach, 64), maps)

    with torch.inference_mode():
        together = look(case.maps)
        for number in range(len(together)):
            assert torch.equal(look(case.maps[number : number + 1])[0], together[number])


def test_a_frame_no_larger_than_a_tile_is_shown_as_it_is() -> None:
    shown: list[Tensor] = []

    def look(maps: Tensor) -> Tensor:
        shown.append(maps)
        return maps

    small, large = torch.rand(1, 1, TILE, TILE), torch.rand(1, 1, TILE, TILE + 16)
    tiled(look, Reach(step=16, halo=16))(small)
    assert len(shown) == 1
    assert shown.pop() is small
    tiled(look, Reach(step=16, halo=16))(large)
    assert len(shown) == 2


@pytest.mark.parametrize("kind", ["bank", "denoiser", "both"])
def test_the_method_shows_its_networks_no_more_than_a_tile(kind: str) -> None:
    spec = InputSpec(height=32, width=TILE + 96, channels=1)
    architecture = Architecture(input=spec, widths=(4, 4, 4, 4), segmenter=(4, 4, 4, 4))
    autoencoder, segmenter, denoiser = make_networks(architecture)
    prior: Prior = {"bank": BankPrior(), "denoiser": denoiser, "both": MeanPrior([BankPrior(), denoiser])}[kind]
    bank = empty_bank(architecture, 3)
    rng = np.random.default_rng(0)
    for slot in range(3):
        bank.put(slot, rng.normal(size=architecture.entry_shape).astype(np.float16))
    frames, method = torch.rand(2, 1, spec.height, spec.width), CalibrationDraft()
    widest = 0

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal widest
        if isinstance(module, nn.Conv2d):
            widest = max(widest, inputs[0].shape[-1])

    with torch.inference_mode():
        features = per_frame(autoencoder.encode, frames)
        found = bank.query(features)
        seen = Seen(frames, features, found, method.alpha, autoencoder.decode)
        wholes = {"bank": BankPrior().imagine(seen), "denoiser": denoiser(frames).clamp(0.0, 1.0)}
        whole = wholes[kind] if kind in wholes else (wholes["bank"] + wholes["denoiser"]) / 2
        suspicion = per_frame(segmenter, frames)
        handle = nn.modules.module.register_module_forward_pre_hook(watch)
        try:
            networks = Networks(autoencoder, segmenter, prior)
            steps, found_suspicion = explain(networks, frames, bank, method), suspect(networks, frames)
        finally:
            handle.remove()
    assert 0 < widest < TILE
    torch.testing.assert_close(steps.features, features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(steps.prior, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_suspicion, suspicion, rtol=1e-4, atol=1e-4)


@dataclass(frozen=True, slots=True)
class CalibrationDraft:
    """The numbers that the decomposition takes."""

    alpha: float = 0.3
    lam: float = 3e-4
    solver_steps: int = 2
