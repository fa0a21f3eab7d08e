"""DeepLabV3's head with the paper's 1x1 over the pyramid."""
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')

from mmseg.models.decode_heads import ASPPHead  # noqa: E402

from plugconv_mm.registry import MODELS  # noqa: E402

SETTINGS = dict(in_channels=12, channels=8, num_classes=5, dilations=(1, 2, 3, 4), norm_cfg=dict(type='BN'))


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type='PointwiseASPPHead', **SETTINGS) | kwargs)


def test_it_is_mmsegs_head_whose_3x3_is_zero_around_its_middle():
    head, reference = build().eval(), ASPPHead(**SETTINGS).eval()
    state = head.state_dict()
    state['bottleneck.conv.weight'] = F.pad(state['bottleneck.conv.weight'], (1, 1, 1, 1))
    reference.load_state_dict(state, strict=True)
    x = torch.randn(2, 12, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(head((x, )), reference((x, )))


def test_size_of_the_published_head():
    with torch.device('meta'):
        head = MODELS.build(dict(type='PointwiseASPPHead', in_channels=160, channels=256, num_classes=21,
                                 dilations=(1, 6, 12, 18), norm_cfg=dict(type='BN')))
    branches = 2 * 160 * 256 + 3 * 9 * 160 * 256 + 5 * 256 * 256
    assert sum(p.numel() for p in head.parameters()) == branches + 6 * 2 * 256 + 256 * 21 + 21


def test_both_dropouts():
    """Single features behind the pyramid, whole channels in front of the classes; neither in evaluation."""
    head = build(pyramid_dropout_ratio=0.5, dropout_ratio=0.)
    x = torch.rand(2, 12, 16, 16)
    head.train()
    features = head._forward_feature((x, ))
    part = (features == 0).float().mean((2, 3))  # ReLU alone leaves about half of the values
    assert ((0.5 < part) & (part < 1)).any() and 0.6 < part.mean() < 0.9
    head.eval()
    torch.testing.assert_close(head((x, )), head((x, )), rtol=0, atol=0)
    assert isinstance(build(dropout_ratio=0.5).dropout, torch.nn.Dropout2d)


def test_everything_learns():
    head = build(pyramid_dropout_ratio=0.1).train()
    head((torch.randn(2, 12, 9, 11), )).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in head.named_parameters() if not name.endswith('conv.bias'))
