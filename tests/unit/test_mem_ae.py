from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import entropy

from schemas.errors import TrainingError
from trainer.baselines.mem_ae import MemAe, MemAeSettings, Memory, MemoryAutoencoder, attention_entropy
from trainer.baselines.reconstruction import Schedule

ITEMS, CHANNELS = 20, 6
QUICK = MemAeSettings(items=50, schedule=Schedule(steps=150, batch=8, learning_rate=3e-3))


def bars(count: int, seed: int) -> NDArray[np.float32]:
    """(N, 1, 32, 48): an upright bright bar on a darker ground, of varying exposure, with a little noise."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, 1, 32, 48), 0.3)
    frames[..., 20:26] = 0.7
    frames *= rng.uniform(0.9, 1.1, (count, 1, 1, 1))
    return (frames + rng.normal(0, 0.01, frames.shape)).astype(np.float32)


def make_memory(shrinkage: float = 1.0, seed: int = 0) -> Memory:
    torch.manual_seed(seed)
    return Memory(ITEMS, CHANNELS, shrinkage)


@pytest.mark.parametrize("shrinkage", [1.0, 1.5, 3.0])
def test_attention_is_sparse_not_negative_and_sums_to_one(shrinkage: float) -> None:
    memory = make_memory(shrinkage)
    queries = torch.randn(500, CHANNELS, generator=torch.Generator().manual_seed(1))
    attention = memory.address(queries).detach()
    assert torch.allclose(attention.sum(dim=1), torch.ones(500), atol=1e-5)
    assert (attention >= 0).all()
    used = (attention > 0).sum(dim=1)
    assert (used >= 1).all()
    assert float(used.float().mean()) < 0.6 * ITEMS / shrinkage


def test_attention_is_the_papers_formula() -> None:
    memory = make_memory(1.2)
    query = torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(2))
    z, items = query.double().numpy()[0], memory.items.detach().double().numpy()
    similarity = np.array([z @ m / (np.linalg.norm(z) * np.linalg.norm(m)) for m in items])
    w = np.exp(similarity) / np.exp(similarity).sum()
    threshold = 1.2 / ITEMS
    shrunk = np.maximum(w - threshold, 0) * w / (np.abs(w - threshold) + 1e-12)
    expected = shrunk / shrunk.sum()
    assert 1 < np.count_nonzero(expected) < ITEMS
    assert memory.address(query)[0].detach().numpy() == pytest.approx(expected, abs=1e-6)


def test_addressing_goes_by_direction_not_by_length() -> None:
    memory = make_memory()
    queries = torch.randn(10, CHANNELS, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(memory.address(queries), memory.address(7.0 * queries), atol=1e-5)


def test_a_query_like_no_item_is_given_one_item_and_no_division_by_zero() -> None:
    attention = make_memory(3.0).address(torch.zeros(2, CHANNELS)).detach()  # uniform: all below the threshold
    assert torch.equal(attention.sum(dim=1), torch.ones(2))
    assert ((attention > 0).sum(dim=1) == 1).all()


@pytest.mark.parametrize("shrinkage", [0.9, 3.1])
def test_a_shrinkage_threshold_outside_the_papers_interval_is_refused(shrinkage: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[1/N, 3/N\]"):
        make_memory(shrinkage)


def test_the_default_shrinkage_threshold_is_within_the_papers_interval() -> None:
    settings = MemAeSettings()
    memory = MemoryAutoencoder(1, settings).memory
    assert 1 / settings.items <= memory.threshold <= 3 / settings.items


def test_what_is_remembered_is_the_items_weighted_by_attention_at_each_location() -> None:
    memory = make_memory()
    features = torch.randn(2, CHANNELS, 3, 4, generator=torch.Generator().manual_seed(4))
    read, attention = memory(features)
    assert attention.shape == (2 * 3 * 4, ITEMS)
    alone = memory.address(features[1, :, 2, 1][None])
    assert torch.allclose(read[1, :, 2, 1], (alone @ memory.items)[0], atol=1e-6)


def test_queries_and_items_both_learn_through_the_attention() -> None:
    memory = make_memory()
    features = torch.randn(1, CHANNELS, 2, 2, requires_grad=True)
    memory(features)[0].square().sum().backward()
    assert features.grad is not None
    assert memory.items.grad is not None
    assert float(features.grad.abs().sum()) > 0
    assert float(memory.items.grad.abs().sum()) > 0


def test_entropy_is_scipys() -> None:
    attention = make_memory().address(torch.randn(30, CHANNELS)).detach()
    assert float(attention_entropy(attention)) == pytest.approx(entropy(attention.numpy(), axis=1).mean(), rel=1e-4)
    assert float(attention_entropy(torch.eye(4))) == 0.0


def test_the_loss_is_the_squared_error_and_the_weighted_entropy() -> None:
    network = MemoryAutoencoder(1, MemAeSettings(items=50)).eval()
    batch = torch.from_numpy(bars(2, seed=0))
    methods = (MemAe(MemAeSettings(items=50, entropy_weight=weight)) for weight in (0.0, 0.5))
    losses = [method._loss(network, batch).item() for method in methods]
    rebuilt, attention = network(batch)
    assert losses[0] == pytest.approx((rebuilt - batch).square().mean().item(), rel=1e-5)
    assert losses[1] - losses[0] == pytest.approx(0.5 * attention_entropy(attention).item(), rel=1e-4)


@pytest.fixture(scope="module")
def trained() -> MemAe:
    method = MemAe(QUICK)
    method.fit(bars(40, seed=0), seed=0)
    return method


def test_it_learns_what_is_normal_and_maps_what_is_not(trained: MemAe) -> None:
    frames = bars(6, seed=1)
    frames[2, :, 4:10, 2:8] = 0.9
    scores = trained.score(frames)
    assert scores.maps.shape == (6, 32, 48)
    assert scores.images.argmax() == 2
    row, column = np.unravel_index(scores.maps[2].argmax(), (32, 48))
    assert 4 <= row < 10
    assert 2 <= column < 8
    assert scores.images == pytest.approx(scores.maps.mean(axis=(1, 2)), rel=1e-5)
    rest = scores.maps[[0, 1, 3, 4, 5]]
    assert rest.mean() < 0.1 * frames.var()  # of one grey value


def test_a_frame_scores_alone_as_in_a_batch(trained: MemAe) -> None:
    frames = bars(4, seed=2)
    assert np.array_equal(trained.score(frames).maps[3], trained.score(frames[3:]).maps[0])


def test_the_same_seed_learns_the_same() -> None:
    settings = MemAeSettings(items=50, schedule=Schedule(steps=3, batch=4, learning_rate=1e-3))
    maps = []
    for seed in (0, 0, 1):
        torch.rand(1)  # so that two trainings do not start alike by chance
        method = MemAe(settings)
        method.fit(bars(8, seed=0), seed=seed)
        maps.append(method.score(bars(1, seed=1)).maps)
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_frames_of_a_size_it_cannot_rebuild_are_refused() -> None:
    with pytest.raises(TrainingError, match="multiples of 16 pixels, not 32x40"):
        MemAe(QUICK).fit(np.zeros((4, 1, 32, 40), np.float32), seed=0)
