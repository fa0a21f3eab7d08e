"""Operators plugged into the classifiers of torchvision and timm."""
import plugging_sweep
import pytest
import torch

timm = pytest.importorskip('timm')
torchvision = pytest.importorskip('torchvision')

QUICK = ['swin_t', 'mobilenetv3_small_050', 'convnext_atto', 'repvgg_a0', 'regnetz_b16']
ARCHITECTURES = {
    'torchvision': ['resnet18', 'mobilenet_v2', 'shufflenet_v2_x0_5', 'efficientnet_b0', 'convnext_tiny', 'densenet121',
                    'vgg11_bn', 'mnasnet0_5', 'squeezenet1_1', 'regnet_y_400mf', 'mobilenet_v3_small', 'googlenet',
                    'swin_t'],
    'timm': ['resnest14d', 'mobilenetv3_small_050', 'convnext_atto', 'ghostnet_050', 'repvgg_a0', 'lcnet_050',
             'seresnet50', 'resnext50_32x4d', 'res2net50_26w_4s', 'skresnet18', 'ecaresnet26t',
             'mobilenetv4_conv_small', 'mixnet_s', 'efficientnet_lite0', 'hardcorenas_a', 'convnextv2_atto',
             'regnetz_b16', 'nfnet_l0', 'hrnet_w18_small', 'dla34', 'cspdarknet53', 'vovnet39a', 'rexnet_100',
             'repghostnet_050', 'starnet_s1', 'edgenext_xx_small', 'inception_next_atto', 'tresnet_m', 'pvt_v2_b0'],
}


def build(library, name):
    torch.manual_seed(0)
    if library == 'timm':
        return timm.create_model(name)
    options = dict(init_weights=False, aux_logits=False) if name == 'googlenet' else {}
    return torchvision.models.get_model(name, weights=None, **options)


@pytest.mark.parametrize('library, name', [
    pytest.param(library, name, marks=[] if name in QUICK else pytest.mark.slow, id=f'{library}-{name}')
    for library, names in ARCHITECTURES.items() for name in names])
def test_a_classifier_starts_as_it_was(library, name, record_property):
    model, images = build(library, name), torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    record_property('class', type(model).__name__)
    plugging_sweep.check(model, lambda network: network(images), lambda network: network(images).square().sum(),
                         (64, 96), record_property)
