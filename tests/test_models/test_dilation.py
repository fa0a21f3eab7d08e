"""Backbones with dilated stages, for dense prediction."""
import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmseg.models.backbones import MobileNetV2, ResNet  # noqa: E402

from plugconv_mm.ops import KWConv2d  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402

RESNET_D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
RESNET_D16 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
MOBILENET_D8 = dict(strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4))
PARCNET_D8 = dict(strides=(2, 2, 1, 1), dilations=(1, 1, 1, 2))
NO_PARC = dict(parc_blocks=(0, 0, 0, 0))

# A thin backbone, its dilation, and the strides of its outputs.
PARC_RESNET = dict(type='ParCResNet', base_channels=8)
PARC_MOBILENET = dict(type='ParCMobileNetV2', widen_factor=0.25)
PARCNET = dict(type='ParCNet', arch=dict(depths=[2, 1, 1], inner_channels=[16, 16, 32], mixer_channels=[24, 16, 16]))
KW_RESNET = dict(type='KWResNet', depth=18)
KW_MOBILENET = dict(type='KWMobileNetV2', widen_factor=0.25)
DILATED = [
    (PARC_RESNET, RESNET_D8, (4, 8, 8, 8)),
    (PARC_RESNET, RESNET_D16 | dict(contract_dilation=True), (4, 8, 16, 16)),
    (PARC_RESNET, dict(strides=(2, 2, 2, 1)), (8, 16, 32, 32)),
    (PARC_MOBILENET, MOBILENET_D8, (4, 8, 8, 8)),
    (PARC_MOBILENET, dict(strides=(1, 2, 2, 2, 1, 1, 1)), (4, 8, 16, 16)),
    (PARCNET, PARCNET_D8, (4, 8, 8, 8)),
    (PARCNET, dict(strides=(2, 2, 2, 1)), (4, 8, 16, 16)),
    (PARCNET, dict(strides=(1, 2, 2, 2), dilations=(2, 1, 1, 1)), (2, 4, 8, 16)),
    (KW_RESNET, RESNET_D8 | dict(contract_dilation=True), (4, 8, 8, 8)),
    (KW_MOBILENET, MOBILENET_D8, (4, 8, 8, 8)),
]


def build(cfg, **kwargs):
    """A backbone in evaluation, with statistics of norms that are not those of the start."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type=cfg['type']) | cfg | kwargs)
    return randomised(model)


def randomised(model):
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.8, 1.2)
    model.eval()  # of which mmseg's give back nothing
    return model


def run(model, x):
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize('cfg, dilation, strides', DILATED, ids=lambda value: value.get('type', '') if isinstance(
    value, dict) else '-'.join(map(str, value)))
def test_strides_of_the_outputs(cfg, dilation, strides):
    plain, dilated = build(cfg), build(cfg, **dilation)
    for size in ((64, 96), (57, 71)):
        outs, plain_outs = (run(model, torch.randn(1, 3, *size)) for model in (dilated, plain))
        assert [out.shape[:2] for out in outs] == [out.shape[:2] for out in plain_outs]
        assert [out.shape[2:] for out in outs] == [tuple(-(-side // s) for side in size) for s in strides]


@pytest.mark.parametrize('cfg, dilation, strides', DILATED)
def test_checkpoints_and_training_stay_as_they_are(cfg, dilation, strides):
    plain, dilated = build(cfg), build(cfg, **dilation)
    dilated.load_state_dict(plain.state_dict(), strict=True)
    sum(out.square().mean() for out in dilated.train()(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in dilated.parameters())


def geometry(model):
    """Stride, dilation and padding of all convolutions that are larger than 1x1 or have a stride."""
    convs = [m for m in model.modules() if isinstance(m, (nn.Conv2d, KWConv2d))]
    return [(conv.kernel_size, conv.stride, conv.dilation, conv.padding) for conv in convs
            if conv.kernel_size != (1, 1) or conv.stride != (1, 1)]


RESNET_SETTINGS = pytest.mark.parametrize('dilation', [RESNET_D8, RESNET_D16, dict(dilations=(1, 2, 3, 6))],
                                          ids=['d8', 'd16', 'others'])


@RESNET_SETTINGS
@pytest.mark.parametrize('contract', [False, True])
def test_without_parc_it_is_the_resnet_of_mmseg(dilation, contract):
    settings = dict(depth=50, base_channels=8, contract_dilation=contract, **dilation)
    reference = randomised(ResNet(stem_channels=8, **settings))
    model = build(PARC_RESNET, **NO_PARC, **settings)
    model.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, 3, 65, 97)
    for got, want in zip(run(model, x), run(reference, x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.std()))


@RESNET_SETTINGS
@pytest.mark.parametrize('contract', [False, True])
@pytest.mark.parametrize('depth', [18, 50])
def test_kw_resnet_is_dilated_as_the_resnet_of_mmseg(depth, dilation, contract):
    settings = dict(depth=depth, contract_dilation=contract, **dilation)
    with torch.device('meta'):
        reference, model = ResNet(**settings), MODELS.build(dict(type='KWResNet', **settings))
    assert geometry(model) == geometry(reference)


def test_dilated_kernels_of_a_warehouse():
    """The dynamic convolution of a dilated block is the plain one with the kernel that was mixed for the image."""
    model = build(KW_RESNET, **RESNET_D8)
    conv, x = model.layer4[1].conv1, torch.randn(1, 512, 9, 11)
    assert isinstance(conv, KWConv2d) and conv.dilation == (4, 4)
    with torch.no_grad():
        kernel, = conv.kernels(x.mean((2, 3))).permute(0, 1, 4, 2, 3)
        want = nn.functional.conv2d(x, kernel, padding=4, dilation=4)
    torch.testing.assert_close(run(conv, x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('settings', [
    MOBILENET_D8, dict(), dict(strides=(1, 2, 2, 2, 1, 1, 1), dilations=(2, 1, 1, 1, 1, 2, 2)),
], ids=['d8', 'd32', 'd16'])
def test_without_parc_it_is_the_mobilenetv2_of_mmseg(settings):
    reference = randomised(MobileNetV2(widen_factor=0.5, **settings))
    model = build(PARC_MOBILENET, widen_factor=0.5, parc_blocks=(0, ) * 7, **settings)
    layers = nn.Sequential(*model.features[:-1])  # mmseg's has no last 1x1; otherwise the order is the same
    layers.load_state_dict(dict(zip(layers.state_dict(), reference.state_dict().values(), strict=True)), strict=True)
    x = torch.randn(2, 3, 65, 97)
    outs, (*expected, last) = run(model, x), run(reference, x)
    for got, want in zip(outs, (*expected, run(model.features[-1], last)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.std()))


def test_kw_mobilenetv2_is_dilated_as_the_mobilenetv2_of_mmseg():
    with torch.device('meta'):
        reference, model = MobileNetV2(**MOBILENET_D8), MODELS.build(dict(type='KWMobileNetV2', **MOBILENET_D8))
    assert geometry(model) == geometry(reference)


def test_what_parcnet_dilates():
    """With dilation for stride a stage's inverted residual sees what it saw, at all positions in between as well."""
    plain, dilated = build(PARCNET), build(PARCNET, **PARCNET_D8)
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 96, 13, 18)
    torch.testing.assert_close(run(dilated.layer_4[0], x)[..., ::2, ::2], run(plain.layer_4[0], x))
    x = torch.randn(1, 128, 13, 18)
    torch.testing.assert_close(
        run(dilated.layer_5[0], x)[..., ::4, ::4], run(plain.layer_5[0], x[..., ::2, ::2]))
    # Nothing else: what follows in a stage, its global kernels included, gives the same on the same map.
    x = torch.randn(1, 160, 13, 18)
    torch.testing.assert_close(run(dilated.layer_5[1], x), run(plain.layer_5[1], x))


@pytest.mark.parametrize('cfg, count', [(PARC_RESNET, 4), (KW_RESNET, 4), (PARCNET, 4), (PARC_MOBILENET, 7),
                                        (KW_MOBILENET, 7)], ids=lambda value: value['type'] if isinstance(
                                            value, dict) else '')
@pytest.mark.parametrize('key, wrong, says', [
    ('strides', lambda n: (2, ) * (n - 1), r'strides gives a value for each of {n} stages, got \(2, '),
    ('dilations', lambda n: (1, ) * (n + 1), r'dilations gives a value for each of {n} stages, got \(1, '),
    ('strides', lambda n: 2, 'strides gives a value for each of {n} stages, got 2'),
    ('strides', lambda n: (3, *[1] * (n - 1)), r'strides are 1 or 2, got \(3, 1'),
    ('strides', lambda n: (0, *[1] * (n - 1)), r'strides are 1 or 2, got \(0, 1'),
    ('dilations', lambda n: (*[1] * (n - 1), 0), r'dilations are integers of at least 1, .*, got \(1, .*0\)'),
    ('dilations', lambda n: (*[1] * (n - 1), 1.5), r'dilations are integers of at least 1, .*, got \(1, .*1\.5\)'),
])
def test_bad_arguments(cfg, count, key, wrong, says):
    with pytest.raises(ValueError, match=says.format(n=count)):
        MODELS.build(cfg | {key: wrong(count)})
