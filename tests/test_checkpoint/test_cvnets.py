"""Whole models of CVNets, on which ParC-Net was published."""
import pytest
import recorded
import torch

pytest.importorskip('mmengine')

from plugconv_mm.checkpoint import convert_official, load_from_local, write_checkpoint  # noqa: E402
from plugconv_mm.checkpoint.conversion import convert_with_report  # noqa: E402
from plugconv_mm.errors import CheckpointError  # noqa: E402

RECORD = recorded.load('parcnet_s_deeplabv3')
# Some of the names behind the encoder of the published detector.
DETECTOR = {f'{name}.weight': torch.zeros(4) for name in (
    'extra_layers.os_64.dw_conv.block.conv', 'extra_layers.os_-1.1.block.conv', 'ssd_heads.0.proj_layer.block.conv',
    'ssd_heads.5.loc_cls_layer.block.conv')}


@pytest.fixture(scope='module')
def published():
    return recorded.checkpoint(RECORD)


def encoder_of(published):
    return {key: value for key, value in published.items() if key.startswith('encoder.')}


def test_parts_of_a_segmentor(published):
    ours, report = convert_with_report({'state_dict': {f'module.{key}': value for key, value in published.items()}})
    assert report.startswith("ParC-Net (under 'backbone.'): 569 tensors")
    assert {key.partition('.')[0] for key in ours} == {'backbone', 'decode_head'}
    aspp = 'seg_head.aspp.aspp_layer'
    for old, new in (('encoder.conv_1.block.norm.bias', 'backbone.conv_1.norm.bias'),
                     ('encoder.layer_5.0.block.conv_3x3.block.conv.weight', 'backbone.layer_5.0.conv_3x3.conv.weight'),
                     (f'{aspp}.convs.0.block.conv.weight', 'decode_head.aspp_modules.0.conv.weight'),
                     (f'{aspp}.convs.3.block.norm.running_var', 'decode_head.aspp_modules.3.bn.running_var'),
                     (f'{aspp}.convs.4.aspp_pool.conv_1x1.block.norm.weight', 'decode_head.image_pool.1.bn.weight'),
                     (f'{aspp}.project.block.norm.bias', 'decode_head.bottleneck.bn.bias'),
                     ('seg_head.classifier.classifier.block.conv.bias', 'decode_head.conv_seg.bias')):
        assert ours[new] is published[old]
    theirs, projection = published[f'{aspp}.project.block.conv.weight'], ours['decode_head.bottleneck.conv.weight']
    assert torch.equal(projection[:, :256], theirs[:, -256:]) and torch.equal(projection[:, 256:], theirs[:, :-256])
    assert convert_official(ours).keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in convert_official(ours).items())


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_the_loader_converts(published, tmp_path, prefix):
    write_checkpoint({f'{prefix}{key}': value for key, value in published.items()}, tmp_path / 'published.pth')
    loaded = load_from_local(str(tmp_path / 'published.pth'))['state_dict']
    expected = convert_official(published)
    assert loaded.keys() == expected.keys() and all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_the_encoder_is_a_backbone(published, tmp_path):
    """Of a file of the segmentor, or of the encoder alone."""
    pytest.importorskip('mmcv')
    from plugconv_mm.registry import MODELS
    expected = convert_official(published)
    for number, state in enumerate((published, encoder_of(published))):
        write_checkpoint(state, tmp_path / f'{number}.pth')
        backbone = MODELS.build(dict(type='ParCNet', strides=(2, 2, 2, 1), init_cfg=dict(
            type='Pretrained', prefix='backbone.', checkpoint=str(tmp_path / f'{number}.pth'))))
        backbone.init_weights()
        assert all(torch.equal(value, expected[f'backbone.{key}']) for key, value in backbone.state_dict().items())


def test_the_detector_is_refused(published, tmp_path):
    detector = {**encoder_of(published), **DETECTOR}
    says = r"ParC-Net's published SSD detector.*4 tensors under 'extra_layers\.' and 'ssd_heads\.'.*encoder is conv"
    with pytest.raises(CheckpointError, match=says):
        convert_official(detector)
    write_checkpoint(detector, tmp_path / 'detector.pth')
    with pytest.raises(CheckpointError, match=says):
        load_from_local(str(tmp_path / 'detector.pth'))
    assert set(convert_official(encoder_of(detector))) == {
        key for key in convert_official(published) if key.startswith('backbone.')}


@pytest.mark.parametrize('key', ['seg_head.aux_head.aux_classifier.block.conv.bias',
                                 'seg_head.aspp.aspp_layer.convs.1.dw_conv.block.conv.weight'])
def test_other_heads_are_refused(published, key):
    with pytest.raises(CheckpointError, match=f"'{key}' is unknown in a ParC-Net with the head of DeepLabV3"):
        convert_official({**published, key: torch.zeros(4)})


def test_encoders_of_other_models_are_not_meant(published):
    state = {'backbone.layer3.3.parc_H.pe': torch.zeros(1, 8, 14, 1), 'encoder.layers.0.norms.0.weight': torch.zeros(4),
             'ssd_heads.0.weight': torch.zeros(4)}
    assert set(convert_official(state)) == {
        'backbone.layer3.3.conv2.parc_h.position_embedding', 'encoder.layers.0.norms.0.weight', 'ssd_heads.0.weight'}
