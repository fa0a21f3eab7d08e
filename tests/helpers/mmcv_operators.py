"""What the tests of mmcv's operators share.

A case calls an operator the way users do, through ``mmcv.ops``, and returns everything that comes out of it: values
first, then the gradients with respect to every input that has one. Its reference computes the same from the definition.
"""
import importlib
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

from plugconv_mm.compat import bridge, mmcv_ops

mmcv = pytest.importorskip('mmcv', reason='the bridge serves mmcv')
importlib.import_module('mmcv.ops')

Case = tuple[Callable[..., list[Tensor]], Callable[..., list[Tensor]], tuple]


def use(monkeypatch: pytest.MonkeyPatch, extension: Any) -> None:
    """Let mmcv.ops call the functions of ``extension``, whatever it found when it was imported."""
    for name, module in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', extension)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = 'cpu',
           grad: bool = True) -> Tensor:
    value = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    return value.to(device, dtype).requires_grad_(grad)


def random_boxes(count: int, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = 'cpu',
                 size: float = 20.) -> tuple[Tensor, Tensor]:
    g = generator(seed)
    corners = torch.rand(count, 2, generator=g, dtype=torch.float64) * size * .6
    extents = torch.rand(count, 2, generator=g, dtype=torch.float64) * size * .6 + .5
    scores = torch.rand(count, generator=g, dtype=torch.float64)
    return torch.cat((corners, corners + extents), 1).to(device, dtype), scores.to(device, dtype)


def with_gradients(output: Tensor, *inputs: Tensor | None) -> list[Tensor]:
    """The output and the gradients of a fixed random combination of its entries."""
    cotangent = random(*output.shape, seed=99, dtype=output.dtype, device=str(output.device), grad=False)
    return [output.detach(), *grad(output, [i for i in inputs if i is not None], cotangent)]


def overlap(a: list[float], b: list[float], offset: float = 0) -> float:
    """The IoU of two boxes."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def bilinear(plane: Tensor, y: float | Tensor, x: float | Tensor) -> Tensor:
    """A value between the pixels of (C, H, W), where pixels beyond the border are 0.

    At a pixel it has the slope towards the next one, as the kernels have it.
    """
    height, width = plane.shape[1:]
    total = plane.new_zeros(plane.shape[0])
    top, left = (math.floor(float(v.detach() if torch.is_tensor(v) else v)) for v in (y, x))
    for row, down in ((top, top + 1 - y), (top + 1, y - top)):
        for column, right in ((left, left + 1 - x), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                total = total + down * right * plane[:, row, column]
    return total


def bilinear_in_roi(plane: Tensor, y: float, x: float) -> Tensor | int:
    """What RoI layers sample: the border's value up to a pixel beyond it, and 0 farther out."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0
    return bilinear(plane, min(max(y, 0), height - 1), min(max(x, 0), width - 1))


# Inside the map, beyond its borders, smaller than a pixel, and on the second image.
ROIS = [[0, 2., 3., 11., 9.], [1, -4., -3., 7.5, 30.], [0, 5.2, 5.1, 5.5, 6.1], [1, 0., 0., 23., 19.]]


class WithoutDefaultDevice:
    """The operators with a default device on which nothing can be read, so that none creates its tensors there."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with torch.device('meta'):
                return getattr(mmcv_ops, name)(*args, **kwargs)

        return call


def standard_tests(cases: dict[str, Case], cuda_only: tuple[str, ...] = (), by_value: tuple[str, ...] = (),
             by_median: tuple[str, ...] = ()) -> tuple[Callable[..., None], ...]:
    """The tests that every operator has.

    Args:
        cases: A case, its reference and the arguments of both, by name.
        cuda_only: Beginnings of the names of those that mmcv has no CPU kernel of.
        by_value: Beginnings of the names of those that half precision would pose another problem.
        by_median: Beginnings of the names of those that jump where a rounded input falls into the next pixel.
    """

    @pytest.mark.parametrize('name', cases)
    def test_against_plain_formulation(name: str, bridged: None) -> None:
        case, reference, arguments = cases[name]
        for got, expected in zip(case(*arguments), reference(*arguments), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize('name, dtype', [
        (name, dtype) for name in cases for dtype in (torch.float32, torch.float16, torch.bfloat16)
        if dtype == torch.float32 or not name.startswith(by_value or ('/', ))])
    def test_lower_precision(name: str, dtype: torch.dtype, bridged: None) -> None:
        """What comes out has the dtype that went in, and is the float64 result of the same inputs up to rounding."""
        case, _, arguments = cases[name]
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}[dtype]
        for got, expected in zip(case(*arguments, dtype=dtype), case(*arguments), strict=True):
            assert got.dtype == (torch.int64 if expected.dtype == torch.int64 else dtype)
            if name.startswith(by_median or ('/', )) and dtype != torch.float32:
                distance = (got.double() - expected).abs() / (1 + expected.abs())
                assert distance.median() < tolerance
            else:
                torch.testing.assert_close(got.to(expected.dtype), expected, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize('name', cases)
    def test_tensors_stay_on_their_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        case, _, arguments = cases[name]
        results = []
        for extension in (WithoutDefaultDevice(), mmcv_ops):
            use(monkeypatch, extension)
            results.append(case(*arguments))
        torch.testing.assert_close(*results)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
    @pytest.mark.parametrize('name', cases)
    def test_on_a_gpu(name: str, bridged: None) -> None:
        case, _, arguments = cases[name]
        for got, expected in zip(case(*arguments, device='cuda'), case(*arguments), strict=True):
            assert got.device.type == 'cuda' or got.dtype == torch.int64
            torch.testing.assert_close(got.cpu(), expected, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize('name', cases)
    def test_against_compiled_mmcv(name: str, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        device = 'cpu'
        if name.startswith(cuda_only or ('/', )):
            if not torch.cuda.is_available() or compiled.get_compiling_cuda_version() == 'not available':
                pytest.skip('compiled mmcv has no CPU kernel of this operator, and there is no GPU or no CUDA build')
            device = 'cuda'
        case, _, arguments = cases[name]
        results = []
        for extension in (mmcv_ops, compiled):
            use(monkeypatch, extension)
            results.append(case(*arguments, dtype=torch.float32, device=device))
        differences = [(a.double() - b.double()).abs().max().item() for a, b in zip(*results, strict=True)]
        print(f'{name}: largest difference {max(differences):.1e}')
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)

    return (test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu,
            test_against_compiled_mmcv)


def load_compiled() -> Any:
    """mmcv's compiled operators, beside the bridge where that is in use; skips the test where there are none."""
    if bridge.in_use() == 'mmcv':
        return sys.modules['mmcv._ext']
    spec = importlib.machinery.PathFinder.find_spec('mmcv._ext', mmcv.__path__)
    if spec is None:
        pytest.skip('mmcv was installed without compiled operators')
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        pytest.skip(f"mmcv's compiled operators do not load: {error}")
    return module
