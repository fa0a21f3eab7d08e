"""Effective receptive fields whose extent is known."""
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from plugconv_mm.analysis.receptive_field import (  # noqa: E402
    area_ratios,
    contributions,
    replknet_scores,
    square_sides,
)
from plugconv_mm.ops import ParC2d, ParCHW2d  # noqa: E402


def images(number=3, size=21, channels=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, channels, size, size, generator=generator) for _ in range(number)]


def support(module, **settings):
    torch.manual_seed(0)
    field = contributions(module, images(**settings))
    assert field.min() >= 0
    return field > 0


def convolution(k, channels=4):
    return nn.Conv2d(channels, channels, k, padding=k // 2)


def square(k, size=21):
    expected = np.zeros((size, size), bool)
    low = size // 2 - k // 2
    expected[low:low + k, low:low + k] = True
    return expected


@pytest.mark.parametrize('k', [1, 3, 5, 7, 13])
def test_a_convolution_sees_its_kernel(k):
    torch.manual_seed(0)
    module = convolution(k)
    assert (support(module, number=20) == square(k)).all()
    field = contributions(module, images(20))
    assert square_sides(field, (1., )) == [k]
    assert area_ratios(field, (1., )) == [pytest.approx(k * k / 21**2)]


def test_parc_along_h_sees_a_column():
    for direction, axis in (('H', 1), ('W', 0)):
        expected = np.zeros((21, 21), bool)
        expected[(slice(None), 10) if axis == 1 else (10, slice(None))] = True
        for backend in ('spatial', 'gemm'):
            layer = ParC2d(4, direction, meta_size=7, groups=1, backend=backend)
            assert (support(layer, number=20) == expected).all(), (direction, backend)


def test_parc_through_the_transform_sees_a_column_but_for_rounding():
    field = contributions(ParC2d(4, 'H', meta_size=7, groups=1, backend='fft'), images(20))
    assert (field[:, 10] > 0).all() and np.delete(field, 10, axis=1).max() < 1e-6 * field.max()


def test_parc_along_h_then_w_sees_the_whole_map():
    layers = nn.Sequential(ParC2d(4, 'H', 7, groups=1, backend='gemm'), ParC2d(4, 'W', 7, groups=1, backend='gemm'))
    assert support(layers, number=20).all()


def test_parc_on_halves_of_the_channels_sees_a_cross():
    expected = np.zeros((21, 21), bool)
    expected[10] = expected[:, 10] = True
    assert (support(ParCHW2d(8, 7, depthwise=False, backend='gemm'), number=20, channels=8) == expected).all()


def test_stacking_grows_it():
    ratios = []
    for depth in (1, 2, 4):
        torch.manual_seed(0)
        layers = nn.Sequential(*(convolution(3) for _ in range(depth)))
        assert (support(layers, number=20) == square(2 * depth + 1)).all()
        ratios.append(area_ratios(contributions(layers, images(20)), (0.99, )))
    assert ratios[0] < ratios[1] < ratios[2]


def test_strides_and_even_sizes_have_their_centre_right_and_below():
    layer = nn.Conv2d(4, 4, 4, stride=4)
    field = support(layer, number=20, size=16)
    assert field[8:12, 8:12].all() and field.sum() == 16


def test_a_layer_norm_at_the_end_leaves_gradients():
    """The channels behind it sum to zero, whatever the image."""
    class Norm(nn.Module):

        def forward(self, x):
            return nn.functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)

    field = contributions(nn.Sequential(convolution(3), Norm()), images(20))
    assert (field[square(3)] > 1e-3).all()


def test_the_mean_over_images_and_no_more_than_one_at_a_time():
    module = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)
    alive = []

    def stream():
        for image in images(5):
            alive.append(image)
            yield image
            assert image.grad is None

    each = [contributions(module, [image]) for image in images(5)]
    np.testing.assert_allclose(contributions(module, stream()), np.mean(each, axis=0))
    assert len(alive) == 5


def test_squares_of_a_known_field():
    field = np.zeros((8, 12))
    field[4, 6] = 1
    assert square_sides(field, (0.2, 0.99)) == [1, 1]
    field[4, 11] = 1  # 5 to the right
    assert square_sides(field, (0.5, 0.51)) == [1, 11]
    assert area_ratios(field, (0.5, 0.51)) == [1 / 96, 8 * 11 / 96]
    uniform = np.ones((10, 10))
    assert area_ratios(uniform, (1., )) == [1.]
    assert area_ratios(uniform, (0.2, 0.5)) == [5 * 5 / 100, 9 * 9 / 100]  # 7x7 holds 49%


def test_logarithmic_scores():
    field = np.array([[0, 3.], [33, 333]])
    np.testing.assert_allclose(replknet_scores(field), [[0, 1], [2, 3]])


@pytest.mark.parametrize('field', [np.zeros((3, 3)), np.full((3, 3), np.nan), -np.ones((3, 3))])
def test_a_field_of_nothing(field):
    with pytest.raises(ValueError, match='finite and not negative, and not all zero'):
        square_sides(field)


def test_what_is_no_map():
    with pytest.raises(ValueError, match='expected a map'):
        contributions(nn.Flatten(), images(1))
    with pytest.raises(ValueError, match='there is no image'):
        contributions(convolution(3), [])
    with pytest.raises(ValueError, match='images of one size'):
        contributions(convolution(3), [*images(1), *images(1, size=9)])
