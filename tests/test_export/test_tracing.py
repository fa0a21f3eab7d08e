"""Code of OpenMMLab that is replaced while a model is traced: it gives the same, for batches of any size."""
import pytest
import torch
from torch import nn

for name in ('mmdet', 'mmseg'):
    pytest.importorskip(name)

from mmdet.registry import MODELS  # noqa: E402

from plugconv_mm.export.tasks import ExportedModule, ExportedPart  # noqa: E402
from plugconv_mm.export.tracing import traceable  # noqa: E402
from plugconv_mm.ops import ParC2d  # noqa: E402


def exported(model, call, x, any_size=False):
    module = ExportedModule(model, ExportedPart('', call, 'output'))
    shapes = {0: torch.export.Dim('batch')}
    if any_size:
        shapes.update({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC})
    with torch.no_grad():
        return torch.export.export(  # with the options of torch.onnx.export
            module, (x, ), dynamic_shapes=(shapes, ), strict=False,
            prefer_deferred_runtime_asserts_over_guards=any_size).module()


def sizes(x):
    """What mmdet does with the shape of a map."""
    size = torch._shape_as_tensor(x)[2:].to(x.device)
    all_sizes = torch.cat([size, size + 1]).view(-1, 2)
    starts = torch.cat((all_sizes.new_zeros((1, )), all_sizes.prod(1).cumsum(0)[:-1]))
    assert (all_sizes[:, 0] * all_sizes[:, 1]).sum() == 4 * 5 + 5 * 6
    total = starts * x.mean()
    for height, width in all_sizes:
        total = total + torch.linspace(0.5, height - 0.5, height).sum() / width
    factor = torch.stack([all_sizes[..., 1], all_sizes[..., 0]], -1).unsqueeze(0).flip(dims=[0, 1])
    return total, x[:, :2, :2, 0] / factor, x.reshape(x.shape[0], -1, all_sizes[0][0], all_sizes[0][1])


def test_sizes_of_maps_are_known():
    x, original = torch.rand(3, 2, 4, 5), torch._shape_as_tensor
    program = exported(nn.Identity(), lambda _, x, __: sizes(x), x[:2])
    for got, want in zip(program(x), sizes(x), strict=True):
        torch.testing.assert_close(got, want)
    with traceable():  # nothing is replaced where nothing is traced
        assert torch._shape_as_tensor is original


@pytest.mark.parametrize('layer', [
    *map(nn.AdaptiveAvgPool2d, (1, 2, 3, 6, (2, None))),
    *(ParC2d(6, direction, meta_size=5, groups=groups) for direction in 'HW' for groups in (1, 2, 6))], ids=str)
def test_layers_of_maps_of_any_size(layer):
    program = exported(layer, lambda layer, x, _: (layer(x), ), torch.rand(2, 6, 12, 18), any_size=True)
    for size in ((12, 18), (7, 10), (15, 13)):
        x = torch.rand(3, 6, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(x)[0], layer(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_windows_of_swin():
    torch.manual_seed(0)
    cfg = dict(type='SwinTransformer', embed_dims=8, depths=(2, ), num_heads=(2, ), window_size=3, strides=(4, ),
               out_indices=(0, ))
    model = MODELS.build(cfg)
    model.eval()
    x = torch.rand(3, 3, 20, 32)
    with torch.no_grad():
        torch.testing.assert_close(exported(model, lambda m, x, _: m(x), x[:2])(x), model(x))
