"""Operators plugged into attention: which is known, what the model computes then, and how to undo it."""
import copy
import pickle

import pytest
import torch
from torch import nn

import plugconv_mm
from plugconv_mm.errors import PlugError
from plugconv_mm.ops import ParCHW2d, ParCMixer
from plugconv_mm.plugging import ATTENTIONS, CONVS, PluggedAttention, plug, unplug
from plugconv_mm.plugging.attention import Grid, TokenMixer, attentions_of, kind_of, prefix_of

PARC = dict(type='plugconv_mm.ParCMixer', meta_size='auto')


def timm_model(name, **kwargs):
    return pytest.importorskip('timm').create_model(name, pretrained=False, num_classes=3, **kwargs)


def timm_vit(**kwargs):
    return timm_model('deit_tiny_patch16_224', **dict(dict(img_size=64, depth=2, embed_dim=16, num_heads=2), **kwargs))


def timm_swin(name='swin_tiny_patch4_window7_224', **kwargs):
    return timm_model(name, **dict(dict(img_size=64, window_size=4, depths=(2, 1), embed_dim=16, num_heads=(2, 2)),
                                   **kwargs))


def torchvision_vit():
    return pytest.importorskip('torchvision').models.VisionTransformer(64, 16, 2, 2, 16, 32, num_classes=3)


def torchvision_swin(block):
    swin = pytest.importorskip('torchvision').models.swin_transformer
    return swin.SwinTransformer([4, 4], 16, [2, 1], [2, 2], [4, 4], num_classes=3, block=getattr(swin, block),
                                downsample_layer=swin.PatchMerging)


def mm_model(package, name, **kwargs):
    return getattr(pytest.importorskip(f'{package}.models.backbones'), name)(**kwargs)


def mmpretrain_vit():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    return mm_model('mmpretrain', 'VisionTransformer', arch=arch, img_size=64, drop_path_rate=0.2)


WIDTHS = dict(embed_dims=8, num_layers=(1, 1), num_heads=(1, 2), num_stages=2, patch_sizes=(4, 3), strides=(4, 2),
              sr_ratios=(2, 1), out_indices=(0, 1), drop_path_rate=0.2)
PVT = dict(WIDTHS, paddings=(0, 1), mlp_ratios=(2, 2))
MODELS = {  # the model, what its attention is called, H and W of the image, and whether tokens are ahead of the map
    'timm-vit': (timm_vit, r're:blocks\.\d\.attn', (64, 64), 1),
    'timm-vit-registers': (lambda: timm_vit(img_size=(32, 64), reg_tokens=2, qk_norm=True), r're:blocks\.\d\.attn',
                           (32, 64), 3),
    'timm-vit-mean': (lambda: timm_vit(class_token=False, global_pool='avg'), r're:blocks\.\d\.attn', (64, 64), 0),
    'timm-deit-distilled': (lambda: timm_model('deit_tiny_distilled_patch16_224', img_size=64, depth=1, embed_dim=16,
                                               num_heads=2), r're:blocks\.\d\.attn', (64, 64), 2),
    'timm-swin': (timm_swin, r're:.*blocks\.\d\.attn', (64, 64), 0),
    'timm-swin-odd': (lambda: timm_swin(img_size=(56, 72)), r're:.*blocks\.\d\.attn', (56, 72), 0),
    'timm-swin-v2': (lambda: timm_swin('swinv2_tiny_window8_256'), r're:.*blocks\.\d\.attn', (64, 64), 0),
    'timm-pvt-v2': (lambda: timm_model('pvt_v2_b0', depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16),
                                       num_heads=(1, 1, 2, 2)),
                    r're:.*blocks\.\d\.attn', (64, 96), 0),
    'torchvision-vit': (torchvision_vit, r're:.*self_attention', (64, 64), 1),
    'torchvision-swin': (lambda: torchvision_swin('SwinTransformerBlock'), r're:features.*attn', (52, 76), 0),
    'torchvision-swin-v2': (lambda: torchvision_swin('SwinTransformerBlockV2'), r're:features.*attn', (64, 64), 0),
    'mmpretrain-vit': (mmpretrain_vit, r're:layers.*attn', (64, 96), 1),
    'mmpretrain-deit': (lambda: mm_model('mmpretrain', 'DistilledVisionTransformer', img_size=64, arch=dict(
        embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)), r're:layers.*attn', (64, 64), 2),
    'mmpretrain-swin': (lambda: mm_model('mmpretrain', 'SwinTransformer', img_size=64, window_size=2, arch=dict(
        embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 1, 1])), r're:stages.*attn', (72, 104), 0),
    'mmdet-swin': (lambda: mm_model('mmdet', 'SwinTransformer', embed_dims=8, depths=(2, 1, 1, 1), window_size=4,
                                    num_heads=(1, 1, 1, 1)), r're:stages.*attn', (72, 104), 0),
    'mmdet-pvt': (lambda: mm_model('mmdet', 'PyramidVisionTransformer', **PVT), r're:layers.*\d\.attn', (72, 104), 0),
    'mmdet-pvt-v2': (lambda: mm_model('mmdet', 'PyramidVisionTransformerV2', embed_dims=8, num_layers=[1] * 4),
                     r're:layers.*\d\.attn', (72, 104), 0),
    'mmseg-mit': (lambda: mm_model('mmseg', 'MixVisionTransformer', embed_dims=8, num_layers=[1] * 4,
                                   num_heads=[1] * 4), r're:layers.*\d\.attn', (72, 104), 0),
    'mmseg-vit': (lambda: mm_model('mmseg', 'VisionTransformer', img_size=(64, 96), embed_dims=16, num_layers=2,
                                   num_heads=2, mlp_ratio=2), r're:layers.*\d\.attn', (64, 96), 1),
}
cases = pytest.mark.parametrize('case', MODELS)


def build(case):
    torch.manual_seed(0)
    make, target, size, ahead = MODELS[case]
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    net = make()
    net.eval()
    for parameter in net.parameters():
        if not parameter.any():  # as in heads, and in norms at the end of a branch
            nn.init.normal_(parameter, 0, 0.1)
    return net, x, dict(target=target, to=PARC), ahead


def outputs(net, x):

    def flat(found):
        return sum(map(flat, found), []) if isinstance(found, (tuple, list)) else [found.flatten()]

    return torch.cat(flat(net(x)))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_attention_is_tried():
    tried = {type(module).__name__ for make, *_ in MODELS.values() for module in attentions_of(make()).values()}
    assert tried == set(ATTENTIONS)


@cases
def test_a_residual_starts_as_the_model_was_and_can_be_taken_out(case):
    net, x, rule, ahead = build(case)
    expected, state, known = outputs(net, x), net.state_dict(), attentions_of(net)
    report = plug(net, [dict(rule, start='residual')], tuple(x.shape[2:]))
    assert report.plugged == list(known)
    assert torch.equal(outputs(net, x), expected)
    assert torch.equal(outputs(copy.deepcopy(net), x), expected)
    assert {net.get_submodule(name).new.prefix for name in known} == {ahead}
    found = net.load_state_dict(state, strict=False)
    assert not found.unexpected_keys and all('.new.' in key or key.endswith('.gamma') for key in found.missing_keys)
    for name in known:
        nn.init.ones_(net.get_submodule(name).gamma)
    assert not torch.equal(outputs(net, x), expected)
    assert unplug(net) == list(known) and unplug(net) == []
    assert torch.equal(outputs(net, x), expected)
    assert net.state_dict().keys() == state.keys() and attentions_of(net).keys() == known.keys()
    assert not any(isinstance(hook, Grid) for module in net.modules() for hook in module._forward_hooks.values())
    assert not any('_attn' in module.__dict__ for module in net.modules())


@cases
@pytest.mark.parametrize('start', ['residual', 'scratch'])
def test_everything_new_is_trained_and_saved(case, start):
    net, x, rule, _ = build(case)
    rule.update(start=start)
    names = plug(net, [rule], tuple(x.shape[2:])).plugged
    other = build(case)[0]
    plug(other, [rule], tuple(x.shape[2:]))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)  # without dropout, for all to be reached
    for _ in range(2):
        optimizer.zero_grad()
        out = outputs(net, x)
        (out * torch.linspace(-1, 1, len(out))).sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1)
        optimizer.step()
    new = {f'{name}.{key}': parameter for name in names for key, parameter in net.get_submodule(name).named_parameters()
           if not key.startswith('base.')}
    still = [key for key, parameter in new.items() if parameter.grad is None or not parameter.grad.any()]
    assert new and not still
    other.load_state_dict(net.state_dict())
    assert torch.equal(outputs(other, x), outputs(net, x))


@cases
def test_from_scratch_the_attention_is_gone(case):
    net, x, rule, _ = build(case)
    before, inside = count(net), [count(module) for module in attentions_of(net).values()]
    report = plug(net, [rule], tuple(x.shape[2:]))
    assert attentions_of(net) == {}
    assert [layer.before for layer in report.layers] == inside
    assert count(net) == before + sum(layer.after - layer.before for layer in report.layers)
    copied = copy.deepcopy(net)
    assert torch.equal(outputs(copied, x), outputs(net, x))
    changed = x.clone()
    changed[:, :, -1, -1] += 1  # one corner reaches all tokens and all outputs
    assert outputs(net, changed).isfinite().all() and not torch.equal(outputs(net, changed), outputs(net, x))


# -- maps and tokens

@pytest.mark.parametrize('ahead', [0, 1, 3])
def test_tokens_are_rows_of_the_map_and_those_ahead_get_its_mean(ahead):
    operator = ParCMixer(4, 5)
    mixer = TokenMixer(operator, ATTENTIONS['Attention'][0], nn.Identity(), ahead, (3, 5))
    image = torch.randn(2, 4, 3, 5)
    tokens = torch.stack([image[:, :, i, j] for i in range(3) for j in range(5)], dim=1)
    y = mixer(torch.cat((torch.randn(2, ahead, 4), tokens), dim=1))
    expected = operator(image)
    for n, (i, j) in enumerate((i, j) for i in range(3) for j in range(5)):
        torch.testing.assert_close(y[:, ahead + n], expected[:, :, i, j])
    for n in range(ahead):
        torch.testing.assert_close(y[:, n], expected.mean((2, 3)))


@pytest.mark.parametrize('case', ['timm-swin-odd', 'torchvision-swin'])
@pytest.mark.parametrize('start', ['residual', 'scratch'])
def test_windows_are_mixed_as_one_map(case, start):
    net, x, rule, _ = build(case)
    seen, windows = [], []
    plug(net, [dict(rule, start=start)], tuple(x.shape[2:]))
    for mixer in net.modules():
        if isinstance(mixer, TokenMixer):
            mixer.operator.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    norms = [module.norm1 for module in net.modules() if hasattr(module, 'norm1')]
    for norm in norms:
        norm.register_forward_hook(lambda _, inputs, out: windows.append(out))
    net(x)
    assert len(seen) == len(windows) == 3
    for (image, _), normed in zip(seen, windows, strict=True):
        torch.testing.assert_close(image, normed.permute(0, 3, 1, 2))


def sizes_of(net, x):
    seen = []
    hooks = [module.operator.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
             for module in net.modules() if isinstance(module, TokenMixer)]
    net(x)
    for hook in hooks:
        hook.remove()
    return set(seen)


@pytest.mark.parametrize('make, target', [(mmpretrain_vit, r're:layers.*attn'), (
    lambda: timm_vit(dynamic_img_size=True), r're:blocks\.\d\.attn')], ids=['mmpretrain', 'timm'])
def test_the_map_of_tokens_is_that_of_the_image(make, target):
    net = make()
    net.eval()
    plug(net, [dict(target=target, to=PARC, start='residual')], (64, 64))
    copied = copy.deepcopy(net)
    for rows, columns in ((4, 4), (2, 8), (8, 2), (3, 5)):  # of which three have as many tokens
        x = torch.rand(1, 3, 16 * rows, 16 * columns)
        assert sizes_of(net, x) == {(rows, columns)}
    assert sizes_of(copied, torch.rand(1, 3, 32, 128)) == {(2, 8)}
    assert sizes_of(net, torch.rand(1, 3, 128, 32)) == {(8, 2)}
    assert {mixer.operator.branch_hw.first.meta_size for mixer in net.modules() if isinstance(mixer, TokenMixer)} == {4}


def test_auto_is_the_larger_side_of_the_map():
    net, x, rule, _ = build('mmdet-pvt')
    plug(net, [rule], (72, 104))
    assert net.layers[0][1][1].attn.operator.branch_hw.first.meta_size == 26
    assert net.layers[1][1][1].attn.operator.branch_wh.second.meta_size == 13


def test_a_grid_stands_for_a_pass():
    net, x, rule, _ = build('timm-vit-registers')
    plug(net, [dict(rule, to=dict(PARC, grid=(2, 4)))])
    assert sizes_of(net, x) == {(2, 4)} and net.blocks[0].attn.operator.branch_hw.first.meta_size == 4
    net, x, rule, _ = build('timm-vit')
    plug(net, [dict(rule, to=dict(type='ParCMixer', grid=(3, 5), prefix=2))])
    assert sizes_of(net, x) == {(3, 5)}


OWN = {'ParC2d': {}, 'ParCHW2d': dict(meta_size='auto'), 'ParCMixer': dict(meta_size='auto'), 'GnConv2d': dict(order=2),
       'GlobalLocalFilter': dict(h='auto', w='auto'), 'DecomposedLargeKernelConv2d': dict(large_kernel=7),
       'LargeKernelConv2d': dict(large_kernel=7)}


@pytest.mark.parametrize('start', ['residual', 'scratch'])
@pytest.mark.parametrize('operator', sorted(set(CONVS) - {'KWConv2d'}))
def test_every_operator_mixes_tokens(operator, start):
    net, x, rule, _ = build('timm-vit')
    expected = outputs(net, x)
    report = plug(net, [dict(rule, to=dict(type=f'plugconv_mm.{operator}', **OWN[operator]), start=start)], (64, 64))
    assert report.layers[0].new == (f'Attention + {operator}' if start == 'residual' else report.layers[0].new)
    assert operator in report.layers[0].new
    assert torch.equal(outputs(net, x), expected) == (start == 'residual')


def test_a_function_gets_the_arguments_of_a_depthwise_convolution():
    net, x, rule, _ = build('timm-vit')

    def wide(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias):
        return nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=groups, bias=bias)

    plug(net, [dict(rule, to=wide)], (64, 64))
    operator = net.blocks[1].attn.operator
    assert (operator.groups, operator.bias is None) == (16, False) and net(x).shape == (2, 3)


def test_stochastic_depth_of_the_attention_stays():
    net, x, rule, _ = build('mmdet-pvt')
    drops = [layer.attn.dropout_layer for stage in net.layers for layer in list(stage[1])[1:]]
    plug(net, [rule], (72, 104))
    assert [layer.attn.drop for stage in net.layers for layer in list(stage[1])[1:]] == drops


def test_half_precision_autocast_and_pickles():
    net, x, rule, _ = build('timm-swin')
    net = net.double()
    plug(net, [dict(rule, start='residual')], (64, 64))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}
    net = net.float()
    with torch.autocast('cpu', torch.bfloat16):
        assert net(x).isfinite().all()
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


def test_swin_of_another_size():
    net, _, rule, _ = build('timm-swin')
    plug(net, [rule], (64, 64))
    net.set_input_size((96, 64))
    assert sizes_of(net, torch.rand(1, 3, 96, 64)) == {(24, 16), (12, 8)}


def test_from_a_config():
    pytest.importorskip('mmpretrain')
    from mmengine.config import ConfigDict
    from mmengine.registry import MODELS as ROOT

    model = ROOT.build(ConfigDict(
        type='plugconv_mm.plug', input_size=(64, 64), rules=[dict(target=r're:backbone\.layers.*attn', to=PARC)],
        model=dict(type='mmpretrain.ImageClassifier', data_preprocessor=dict(num_classes=3), backbone=dict(
            type='mmpretrain.VisionTransformer', img_size=64, init_cfg=dict(type='Normal', layer='Conv2d', std=9.),
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)),
            head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=3, in_channels=16))))
    before = copy.deepcopy(model.backbone.layers[0].attn.state_dict())
    model.init_weights()
    after = model.backbone.layers[0].attn.state_dict()
    assert before and all(torch.equal(after[key], value) for key, value in before.items())
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 3)


# -- what is refused

class Cross(nn.Module):
    """A patch embedding and attention of the image to something else, with or without a mask."""

    def __init__(self, masked=False, **kwargs):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.attn = nn.MultiheadAttention(8, 2, **dict(dict(batch_first=True), **kwargs))
        self.masked = masked

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        mask = x.new_zeros(x.shape[1], x.shape[1]) if self.masked else None
        return self.attn(x, x if self.masked else 2 * x, x, attn_mask=mask)[0]


class EvaAttention(nn.Module):
    """An attention that no rule knows."""

    def forward(self, x, rope):
        return x


class WindowAttention(nn.Module):
    """An attention on windows that another method than ``_attn`` makes."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x, mask=None):
        return x


@pytest.mark.parametrize('make, rule, size, message', [
    (Cross, {}, (16, 16),
     'into attn, MultiheadAttention: .* called with a key or value that is not its query, as cross-attention'),
    (lambda: Cross(masked=True), {}, (16, 16),
     'into attn, MultiheadAttention: .* called with a mask: exclude it'),
    (lambda: Cross(batch_first=False), dict(to=dict(PARC, grid=(4, 4))), None, 'build it with batch_first=True'),
    (lambda: nn.ModuleDict(dict(attn=EvaAttention())), {}, None,
     'attn is a EvaAttention, and attention that is known is Attention, EfficientMultiheadAttention'),
    (lambda: nn.ModuleDict(dict(attn=WindowAttention())), {}, None, 'works on windows, and ModuleDict is no block'),
    (lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
     dict(target='self_attn', to=dict(PARC, grid=(4, 4))), None, 'may pass it by'),
    (Cross, {}, None, r'do not give the size of the map .* give input_size, .* or the rule grid=\(H, W\)'),
    (Cross, dict(target='at'), None, 'means no convolution or attention. Layers of the model are, for example, .*attn'),
    (Cross, dict(to=dict(type='KWConv2d')), None, 'means no convolution or attention'),
    (Cross, dict(to=dict(PARC, grid=(4, 4), sizes=3)), None, "argument 'sizes'"),
    (lambda: build('mmdet-pvt')[0], dict(target='re:layers.*attn.*', to=dict(type='ParCHW2d')), None,
     r'means layers\.0\.1\.1\.attn\.sr, which is a part of layers\.0\.1\.1\.attn, .* exclude one of them'),
    (lambda: build('mmdet-pvt')[0], dict(target='layers.0.1.1.attn', to=dict(PARC, grid=(4, 4))), None,
     'its calls give the size of the map, .* leave out grid and prefix'),
    (lambda: build('mmdet-pvt')[0], dict(target='layers.0.1.1.attn'), None, "meta_size='auto' needs input_size"),
], ids=['cross', 'mask', 'batch', 'unknown', 'windows', 'encoder', 'no-size', 'no-name', 'warehouse', 'argument',
        'part', 'grid', 'auto'])
def test_attention_that_cannot_be_plugged(make, rule, size, message):
    net = make()
    before = repr(net)
    with pytest.raises(PlugError, match=message):
        plug(net, [dict(dict(target='attn', to=PARC), **rule)], size)
    assert repr(net) == before


def test_attention_that_cannot_be_plugged_is_skipped():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), Cross())
    rule = dict(target='re:.*', to=dict(type='ParC2d', meta_size=4), exclude='re:.*embed', unfit='skip')
    report = plug(net, [rule], (16, 16))
    assert report.plugged == ['0'] and isinstance(net[1].attn, nn.MultiheadAttention)
    assert 'as cross-attention: exclude it' in report.layers[1].reason


def test_tokens_that_form_no_map():
    net = timm_vit(reg_tokens=1)
    net.num_prefix_tokens = 1  # as a network that says less than it has
    with pytest.raises(PlugError, match='no convolution that makes such a map is known'):
        plug(net, [dict(target=r're:blocks\.\d\.attn', to=PARC)], (64, 64))
    plug(net, [dict(target=r're:blocks\.\d\.attn', to=dict(PARC, prefix=2))], (64, 64))
    with pytest.raises(PlugError, match='17 tokens form no map of 4x4 with 2 tokens ahead'):
        net.blocks[0].attn.grid.size = (4, 4)
        net.blocks[0].attn(torch.rand(1, 17, 16))
    with pytest.raises(PlugError, match='the whole model, or give the rule grid'):
        net.blocks[0].attn.grid.size = None
        net.blocks[0].attn(torch.rand(1, 18, 16))


def test_masks_and_keys_are_refused_when_they_come():
    net = Cross()
    plug(net, [dict(target='attn', to=dict(PARC, grid=(4, 4)), start='residual')])
    with pytest.raises(PlugError, match='as cross-attention'):
        net(torch.rand(1, 3, 16, 16))
    net = timm_vit()
    plug(net, [dict(target='blocks.0.attn', to=dict(PARC, grid=(4, 4)))])
    with pytest.raises(PlugError, match='with a mask'):
        net.blocks[0].attn(torch.rand(1, 17, 16), attn_mask=torch.zeros(17, 17))


def test_plugged_attention_is_not_plugged_again():
    net, x, rule, _ = build('timm-vit')
    plug(net, [dict(rule, target='blocks.0.attn', start='residual'), dict(rule, target='blocks.1.attn')], (64, 64))
    for name in ('blocks.0.attn', 'blocks.1.attn'):
        with pytest.raises(PlugError, match='that is not plugged already'):
            plug(net, [dict(rule, target=name)], (64, 64))
    assert unplug(net) == ['blocks.0.attn']
    assert sizes_of(net, x) == {(4, 4)}  # the other one still knows its map
    plug(net, [dict(rule, target='blocks.0.attn', start='residual')], (64, 64))
    assert isinstance(net.blocks[0].attn, PluggedAttention) and sizes_of(net, x) == {(4, 4)}


def test_frozen_attention_and_hooks():
    net, _, rule, _ = build('timm-vit')
    hook = net.blocks[0].attn.qkv.register_forward_hook(lambda *_: None)
    with pytest.raises(PlugError, match='it has hooks'):
        plug(net, [rule], (64, 64))
    hook.remove()
    net.blocks[1].attn.requires_grad_(False)
    assert plug(net, [dict(rule, unfit='skip')], (64, 64)).plugged == ['blocks.0.attn']


def test_the_conv_in_an_attention_is_plugged_alone():
    net, x, _, _ = build('mmdet-pvt')
    expected = outputs(net, x)
    report = plugconv_mm.plug(net, [dict(target='layers.0.1.1.attn.sr', to=dict(type='KWConv2d'), start='residual')])
    assert report.plugged == ['layers.0.1.1.attn.sr'] and torch.equal(outputs(net, x), expected)


def test_a_rule_for_all_layers_of_a_kind():
    net, _, rule, _ = build('timm-vit')
    report = plug(net, [dict(target='re:.*', where=dict(type='Attention', last=1), to=dict(type='ParCHW2d'))], (64, 64))
    assert report.plugged == ['blocks.1.attn'] and isinstance(net.blocks[1].attn.operator, ParCHW2d)
    assert kind_of(net.blocks[1].attn) is None and prefix_of(net, 'blocks.0.attn') == 1
