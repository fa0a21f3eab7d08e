"""What classifiers have behind the stages: pooling before the last norm, heads, and ParC-Net's expansion."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

mmpretrain = pytest.importorskip('mmpretrain')

from plugconv_mm.models.cls_heads import DropoutLinearClsHead, KWLinearClsHead  # noqa: E402
from plugconv_mm.models.necks import ExpandedPooling  # noqa: E402
from plugconv_mm.ops import KWLinear  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402

ARCH = dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])
POOLING = {
    'HorNet': dict(arch=ARCH | dict(orders=[2, 3, 3, 3], filters=['7x7'] * 4, filter_sizes=[(14, 8)] * 4)),
    'SLaK': dict(arch=ARCH, kernel_size=(9, 7, 5, 5), width_factor=1),
    'ParCConvNeXt': dict(arch=ARCH, parc_blocks=(0, 0, 0, 1)),
    'KWConvNeXt': dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
}
KW = dict(num_classes=10, in_channels=32, cell_inplane_ratio=0.25)


def drawn(module):
    """`module` with values that its initialisation does not give."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator) * 0.3)
            if name.endswith('running_var'):
                value.abs_().add_(0.5)
    return module.eval()


def image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# Pooling before the last norm


@pytest.mark.parametrize('kind', POOLING)
def test_pooling_before_the_norm(kind):
    """The norm of the mean, which is not the mean of the norm, for every output."""
    maps_of = drawn(MODELS.build(dict(type=kind, **POOLING[kind])))
    pooled = MODELS.build(dict(type=kind, gap_before_final_norm=True, **POOLING[kind])).eval()
    pooled.load_state_dict(maps_of.state_dict(), strict=True)
    seen = []
    for i in range(4):
        getattr(maps_of, f'norm{i}').register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    x = image(2, 3, 64, 96)
    with torch.no_grad():
        maps, vectors = maps_of(x), pooled(x)
    for i, (before, normed, got) in enumerate(zip(seen, maps, vectors, strict=True)):
        norm = getattr(maps_of, f'norm{i}')
        assert got.shape == (2, before.shape[1])
        torch.testing.assert_close(got, F.layer_norm(before.mean((2, 3)), got.shape[1:], norm.weight, norm.bias, 1e-6))
        assert (got - normed.mean((2, 3))).abs().max() > 0.01


@pytest.mark.parametrize('kind', POOLING)
def test_pooled_outputs_are_exported_and_train(kind):
    model = drawn(MODELS.build(dict(type=kind, gap_before_final_norm=True, out_indices=(3, ), **POOLING[kind])))
    x = image(1, 3, 64, 64)
    exported = torch.export.export(model, (x, )).module()
    torch.testing.assert_close(exported(x), model(x), atol=1e-4, rtol=1e-4)
    model.train()(x)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


# Heads


def test_dropout_drops_in_training_only():
    head, x = drawn(DropoutLinearClsHead(num_classes=10, in_channels=64, dropout=0.5)), image(8, 64)
    torch.testing.assert_close(head((None, x)), F.linear(x, head.fc.weight, head.fc.bias))
    head.train()
    dropped = head.pre_logits((x, ))
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * x[kept])


@pytest.mark.parametrize('head', [dict(type='DropoutLinearClsHead', num_classes=10, in_channels=32),
                                  dict(type='KWLinearClsHead', **KW)], ids=lambda head: head['type'])
def test_heads_in_classifiers(head):
    """They stand in mmpretrain's classifier, take its losses, and answer with scores."""
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
    from mmpretrain.structures import DataSample
    head = dict(head, type=f'plugconv_mm.{head["type"]}', loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1))
    model = MMPRETRAIN_MODELS.build(dict(
        type='ImageClassifier', neck=dict(type='GlobalAveragePooling'), head=head,
        backbone=dict(type='plugconv_mm.ParCConvNeXt', arch=ARCH, parc_blocks=(0, ) * 4, out_indices=(3, ))))
    model.init_weights()
    samples = [DataSample().set_gt_label(label) for label in (3, 7)]
    loss, = model.train().loss(image(2, 3, 64, 64), samples).values()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    scores = model.eval()(image(2, 3, 64, 64), samples, mode='predict')
    assert [sample.pred_score.shape for sample in scores] == [(10, ), (10, )]
    assert all(abs(float(sample.pred_score.sum()) - 1) < 1e-4 for sample in scores)


def test_names_of_heads():
    names = {name: tuple(value.shape) for name, value in DropoutLinearClsHead(10, 32).state_dict().items()}
    assert names == {'fc.weight': (10, 32), 'fc.bias': (10, )}  # those of a plain head
    names = {name: tuple(value.shape) for name, value in KWLinearClsHead(**KW).state_dict().items()}
    assert names['fc.bias'] == (10, ) and names['warehouse.weights.0'] == (2, 10, 8, 1, 1)  # half of its four cells
    assert {name.rpartition('.')[0] for name in names} <= {
        'fc', 'warehouse.weights', 'fc.attention.fc1', 'fc.attention.norm1', 'fc.attention.fc2', 'fc.attention'}


def test_dynamic_head():
    """Each sample has its own kernel, mixed by the layer of the operator behind the dropout."""
    head, x = drawn(KWLinearClsHead(dropout=0.5, **KW)), image(3, 32)
    assert isinstance(head.fc, KWLinear) and head.fc.warehouse_index == 0
    logits = head((x, ))
    torch.testing.assert_close(logits, head.fc(x))
    torch.testing.assert_close(logits, torch.cat([head((one, )) for one in x.split(1)]))
    assert not torch.allclose(logits[0] + logits[1] - head.fc.bias, head((x[:1] + x[1:2], ))[0], atol=1e-3)
    twin = copy.deepcopy(head)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1.5)
    torch.testing.assert_close(head((x, )), logits)
    head.load_state_dict(twin.state_dict(), strict=True)
    torch.testing.assert_close(head((x, )), twin((x, )))


def test_dynamic_head_is_exported():
    head, x = drawn(KWLinearClsHead(**KW)), image(3, 32)
    exported = torch.export.export(head, ((x, ), )).module()
    torch.testing.assert_close(exported((x, )), head((x, )))


@pytest.mark.parametrize('wrong, says', [
    (dict(cell_inplane_ratio=0.3), 'cell'), (dict(num_classes=0), 'num_classes=0 must be a positive integer'),
    (dict(cell_num_ratio=0), 'cell_num_ratio must be positive, got 0'), (dict(dropout=2), 'dropout probability')])
def test_bad_arguments_of_heads(wrong, says):
    with pytest.raises(ValueError, match=says):
        KWLinearClsHead(**KW | wrong)


@pytest.mark.parametrize('shape', [(2, 31), (2, 32, 1, 1)])
def test_bad_inputs_of_the_dynamic_head(shape):
    with pytest.raises(ValueError, match=r'expected \(N, .*32\), got'):
        KWLinearClsHead(**KW)((torch.rand(shape), ))


# ParC-Net's expansion


def test_expanded_pooling():
    """The mean of an activated map: the activation comes before the mean."""
    neck, x = drawn(ExpandedPooling(in_channels=8, out_channels=24)), image(2, 8, 5, 7)
    vector, = neck((None, x))
    conv, norm = neck.conv[:2]
    y = F.conv2d(x, conv.weight)
    y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    torch.testing.assert_close(vector, F.silu(y).mean((2, 3)))
    assert vector.shape == (2, 24)
    assert list(neck.state_dict()) == ['conv.0.weight', *[f'conv.1.{name}' for name in (
        'weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')]]


def test_expanded_pooling_trains_is_initialised_and_exported():
    neck = ExpandedPooling(8, 24, norm_cfg=dict(type='GN', num_groups=4))
    neck.init_weights()
    x = image(2, 8, 5, 7)
    assert isinstance(neck.conv[1], nn.GroupNorm)
    torch.testing.assert_close(torch.export.export(neck.eval(), ((x, ), )).module()((x, )), neck((x, )))
    neck = ExpandedPooling(8, 24)
    neck.init_weights()
    neck.train()((x, ))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in neck.parameters()) and neck.conv[1].running_mean.any()


def test_bad_input_of_the_expansion():
    with pytest.raises(RuntimeError, match='to have 8 channels, but got 9'):
        ExpandedPooling(8, 24)((torch.rand(1, 9, 4, 4), ))
