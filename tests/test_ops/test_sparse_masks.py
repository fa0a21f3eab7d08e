import math

import pytest
import torch

from plugconv_mm.ops.sparse_masks import (
    cosine_prune_rate,
    drop_and_grow,
    erk_counts,
    pack_mask,
    random_mask,
    snip_counts,
    uniform_counts,
    unpack_mask,
)

SHAPES = [(16, 3, 4, 4), (16, 1, 51, 5), (64, 16), (16, 64), (32, 16, 2, 2), (10, 32)]
SIZES = [math.prod(shape) for shape in SHAPES]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('density', [0.1, 0.6, 0.95])
def test_uniform(density):
    for count, size in zip(uniform_counts(SHAPES, density), SIZES, strict=True):
        assert abs(count - density * size) <= 0.5


@pytest.mark.parametrize('density', [0.1, 0.3, 0.6, 0.95])
def test_erk(density):
    counts = erk_counts(SHAPES, density)
    assert sum(counts) == round(density * sum(SIZES))
    assert all(0 <= count <= size for count, size in zip(counts, SIZES, strict=True))
    ratios = [count / size / (sum(shape) / size)
              for count, size, shape in zip(counts, SIZES, SHAPES, strict=True) if count < size]
    assert max(ratios) - min(ratios) < 1 / min(map(sum, SHAPES))  # proportional, but for the rounding
    dense = [sum(shape) / size for count, size, shape in zip(counts, SIZES, SHAPES, strict=True) if count == size]
    sparse = [sum(shape) / size for count, size, shape in zip(counts, SIZES, SHAPES, strict=True) if count < size]
    assert not dense or min(dense) > max(sparse)


def test_erk_caps_and_hands_on():
    assert any(count == size for count, size in zip(erk_counts(SHAPES, 0.6), SIZES, strict=True))
    assert erk_counts(SHAPES, 1.) == SIZES


@pytest.mark.parametrize('density', [0.05, 0.6])
def test_snip_compares_over_all_layers(density):
    torch.manual_seed(0)
    scores = [torch.rand(shape) * 10.**-i for i, shape in enumerate(SHAPES)]
    counts = snip_counts(scores, density)
    total = round(density * sum(SIZES))
    assert sum(counts) == total
    threshold = torch.cat([score.flatten() for score in scores]).sort(descending=True).values[total - 1]
    assert counts == [int((score >= threshold).sum()) for score in scores]


def test_snip_with_nothing_to_tell_them_apart():
    assert sum(snip_counts([torch.zeros(shape) for shape in SHAPES], 0.5)) == round(0.5 * sum(SIZES))


def test_random_mask():
    mask = random_mask((7, 5, 3, 2), 40, generator())
    assert mask.shape == (7, 5, 3, 2) and mask.sum() == 40
    assert torch.equal(mask, random_mask((7, 5, 3, 2), 40, generator()))
    assert not torch.equal(mask, random_mask((7, 5, 3, 2), 40, generator(1)))
    assert (sum(random_mask((50, ), 20, generator(i)) for i in range(400)) / 400).sub(0.4).abs().max() < 0.12


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_drop_and_grow(growth, layout):
    torch.manual_seed(0)
    weight = torch.randn(8, 6, 3, 3).contiguous(memory_format=layout)
    gradient = torch.randn(8, 6, 3, 3).contiguous(memory_format=layout)
    mask = random_mask(weight.shape, 260, generator())
    how = dict(generator=generator(1)) if growth == 'random' else dict(gradient=gradient)
    kept, new = drop_and_grow(weight, mask, 60, **how)
    assert new.sum() == mask.sum() == 260 and kept.sum() == 200
    assert not (kept & ~mask).any() and not (kept & ~new).any()
    dropped, grown = mask & ~kept, new & ~kept
    assert weight[dropped].abs().max() <= weight[kept].abs().min()
    if growth == 'gradient':
        assert gradient[grown].abs().min() >= gradient[~new].abs().max()
    else:
        other = drop_and_grow(weight, mask, 60, generator=generator(2))
        assert torch.equal(other[0], kept) and not torch.equal(other[1], new)


def test_drop_and_grow_where_most_is_dense():
    weight = torch.arange(1., 101)
    mask = weight > 2
    kept, new = drop_and_grow(weight, mask, 49, generator=generator())
    assert kept.sum() == 49 and new.sum() == 98
    assert torch.equal(*drop_and_grow(weight, mask, 0, generator=generator()))


def test_prune_rate_is_a_cosine():
    assert cosine_prune_rate(0, 100, 0.5) == 0.5
    assert cosine_prune_rate(100, 100, 0.5) == pytest.approx(0.005)
    assert cosine_prune_rate(50, 100, 0.5) == pytest.approx((0.5 + 0.005) / 2)
    assert cosine_prune_rate(25, 100, 0.3) == pytest.approx(0.005 + 0.295 * (1 + math.cos(math.pi / 4)) / 2)
    assert cosine_prune_rate(130, 100, 0.3) == pytest.approx(0.005)


@pytest.mark.parametrize('shape', [(1, ), (8, ), (3, 5), (4, 2, 3, 3)])
def test_packing(shape):
    mask = torch.rand(shape, generator=generator()) < 0.5
    packed = pack_mask(mask)
    assert packed.dtype == torch.uint8 and packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack_mask(packed, shape), mask)
    with pytest.raises(ValueError, match='does not fit the shape'):
        unpack_mask(packed, (*shape, 9))
