"""Weights of another size of a network are refused, with their size and the configs that take them."""
import pytest
import torch

pytest.importorskip('mmengine')
pytest.importorskip('mmcv')

from mmengine.registry import MODELS  # noqa: E402
from repository import ROOT  # noqa: E402

from plugconv_mm.checkpoint import write_checkpoint  # noqa: E402
from plugconv_mm.checkpoint.sizes import check_size  # noqa: E402
from plugconv_mm.errors import CheckpointSizeError  # noqa: E402
from plugconv_mm.models import backbones  # noqa: E402
from plugconv_mm.runtime.configs_of_size import configs_of_size  # noqa: E402
from plugconv_mm.runtime.user_errors import explain  # noqa: E402

NETWORKS = [getattr(backbones, name) for name in backbones.__all__]


def built(network, **arguments):
    with torch.device('meta'):
        return network(**arguments)


@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network.__name__)
def test_every_size_is_told_from_every_other(network):
    sizes = [size for size in network.sizes() if 'img384' not in str(size)][:3]  # to build one takes half a second
    models = [built(network, **size) for size in sizes]
    for size, model in zip(sizes, models, strict=True):
        check_size(model.state_dict(), model.state_dict(), model, '')
        for other_size, other in zip(sizes, models, strict=True):
            if size == other_size:
                continue
            with pytest.raises(CheckpointSizeError, match=f'^Oh. It has the weights of {network.__name__} with') as e:
                check_size(model.state_dict(), other.state_dict(), other, 'Oh.')
            assert (e.value.network, e.value.size, e.value.model) == (network, size, '')


def test_what_passes():
    """Other outputs, a smaller network, filters for larger images, and weights of another network."""
    tiny = built(backbones.HorNet, arch='tiny-gf')
    for model in (built(backbones.HorNet, arch='tiny-gf', out_indices=(3, ), gap_before_final_norm=True),
                  built(backbones.HorNet, arch='tiny-gf-img384'),
                  built(backbones.HorNet, arch=backbones.HorNet.arch_settings['tiny-gf'] | dict(depths=[1, 1, 1, 1])),
                  built(backbones.SLaK, arch='tiny')):
        check_size(tiny.state_dict(), model.state_dict(), model, '')
    plain = built(backbones.ParCConvNeXt, arch='xt', parc_blocks=(0, 0, 0, 0))
    parc = built(backbones.ParCConvNeXt, arch='xt')
    check_size(plain.state_dict(), parc.state_dict(), parc, '')


def test_init_cfg_says_the_size_and_the_configs(tmp_path):
    write_checkpoint({'model': backbones.HATNet('small').state_dict()}, tmp_path / 'x.pth')
    model = MODELS.build(dict(type='plugconv_mm.HATNet', arch='tiny', init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))))
    with pytest.raises(CheckpointSizeError) as error:
        model.init_weights()
    message = explain(error.value)
    assert message.startswith("the checkpoint does not fit HATNet. It has the weights of HATNet with arch='small', and "
                              "the model is one with arch='tiny'. Configs that take it: configs/")
    assert 'configs/transcnn/hat-net-small_8xb128_in1k.py' in message


@pytest.mark.parametrize('network, size, model, config', [
    ('SLaK', dict(arch='base'), 'ImageClassifier', 'slak/slak-base_32xb128_in1k'),
    ('SLaK', dict(arch='small'), 'EncoderDecoder', 'slak/upernet_slak-small_8xb2-160k_ade20k-512x512'),
    ('KWResNet', dict(depth=18, cell_num_ratio=2), 'ImageClassifier', 'kernel_warehouse/kw2x-resnet18_32xb128_in1k'),
    ('KWMobileNetV2', dict(widen_factor=0.5, cell_num_ratio=4), 'ImageClassifier',
     'kernel_warehouse/kw4x-mobilenetv2-050_8xb32_in1k'),
])
def test_configs_of_a_size(network, size, model, config):
    found = configs_of_size(getattr(backbones, network), size, model)
    assert found == [f'configs/{config}.py'] and (ROOT / found[0]).is_file()
