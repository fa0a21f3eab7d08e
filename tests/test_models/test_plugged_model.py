"""Models with operators plugged in, from configs."""
import copy
import re

import pytest
import torch

for name in ('mmdet', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from mmengine.runner import load_checkpoint  # noqa: E402
from mmpretrain.models import ImageClassifier  # noqa: E402
from repository import ROOT  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from plugconv_mm.errors import CheckpointError, PlugError  # noqa: E402
from plugconv_mm.plugging import PluggedConv2d, unplug  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402
from plugconv_mm.runtime.weights import load_weights  # noqa: E402

RULES = [dict(target=r're:backbone\.layer4\..*\.conv2', where=dict(stride=1), start='residual',
              to=dict(type='plugconv_mm.ParCHW2d', meta_size='auto'))]
X = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def classifier(**backbone):
    return ConfigDict(
        type='mmpretrain.ImageClassifier', data_preprocessor=dict(mean=[1.] * 3, std=[2.] * 3, num_classes=5),
        backbone=dict(type='mmpretrain.ResNet', depth=50, base_channels=8, stem_channels=8, **backbone),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=256,
                  init_cfg=dict(type='Normal', layer='Linear', std=0.01)))


def plugged(model, **kwargs):
    return MODELS.build(ConfigDict(type='plugconv_mm.plug', model=model, **dict(
        dict(rules=RULES, input_size=(64, 96)), **kwargs)))


def test_the_model_is_of_its_own_class_and_plugged():
    model = plugged(classifier())
    assert type(model) is ImageClassifier
    assert [name for name, module in model.named_modules() if isinstance(module, PluggedConv2d)] == [
        'backbone.layer4.1.conv2', 'backbone.layer4.2.conv2']
    assert model.backbone.layer4[1].conv2.new.parc_h.weight.shape[2] == 3  # of an image of 96 pixels


def test_a_training_starts_from_the_weights_of_the_model_as_it_was(tmp_path):
    source = MODELS.build(classifier())
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    write_checkpoint({'state_dict': source.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    model = plugged(classifier(), checkpoint=str(tmp_path / 'x.pth'))
    as_made = copy.deepcopy(model.backbone.layer4[1].conv2.new.state_dict())
    model.init_weights()
    assert torch.equal(model.eval()(X), source.eval()(X))
    new = model.backbone.layer4[1].conv2.new.state_dict()
    assert all(torch.equal(new[key], value) for key, value in as_made.items())
    copied = copy.deepcopy(model)
    unplug(copied)
    assert copied.state_dict().keys() == source.state_dict().keys()


def test_pretrained_parts_are_loaded(tmp_path):
    source = MODELS.build(classifier().backbone)
    source.init_weights()
    write_checkpoint({'state_dict': source.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    model = plugged(classifier(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))))
    model.init_weights()
    for name, value in source.state_dict().items():
        name = name.replace('conv2.', 'conv2.base.') if name.startswith(('layer4.1.', 'layer4.2.')) else name
        assert torch.equal(model.backbone.state_dict()[name], value), name


@pytest.mark.parametrize('start', ['scratch', 'residual'])
def test_pretrained_parts_whose_loader_asks_for_their_names(start, tmp_path, capsys):
    """mmdet's Swin looks up each table of positions of the file among its own; nothing is said to be missing."""
    swin = ConfigDict(type='mmdet.SwinTransformer', embed_dims=8, depths=[1, 1], num_heads=[1, 2], strides=[4, 2],
                      out_indices=(0, 1))
    source = MODELS.build(swin)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    write_checkpoint({'state_dict': state, 'meta': {}}, tmp_path / 'x.pth')
    model = plugged(dict(swin, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))), rules=[
        dict(target=r're:stages\.1.*attn', to=dict(type='plugconv_mm.ParCMixer'), start=start),
        dict(target='patch_embed.projection', to=dict(type='plugconv_mm.KWConv2d'), start=start)])
    made = {name: value.clone() for name, value in model.state_dict().items()}
    capsys.readouterr()
    model.init_weights()
    said = capsys.readouterr()
    assert 'missing' not in said.out + said.err and 'unexpected' not in said.out + said.err
    state, expected = model.state_dict(), source.state_dict()
    assert list(state) == list(made)
    new = ('patch_embed.projection.', 'stages.1.blocks.0.attn.')
    for name, value in state.items():
        is_new = name.startswith(new) and '.base.' not in name
        assert torch.equal(value, made[name] if is_new else expected[name.replace('.base.', '.')]), name
    assert any('.base.' in name for name in state) == (start == 'residual')


def test_kernels_are_embedded_as_they_were_loaded(tmp_path):
    source = MODELS.build(classifier()).eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    write_checkpoint({'state_dict': source.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    model = plugged(classifier(), checkpoint=str(tmp_path / 'x.pth'), rules=[dict(
        target=r're:backbone\.layer4\.[12]\.conv2', to=dict(type='KWConv2d', share='stage'), start='embed')]).eval()
    x = torch.rand(2, 3, 64, 64)
    assert not torch.allclose(model(x)[0], source(x)[0])
    model.init_weights()
    torch.testing.assert_close(model(x), source(x))


def test_the_preprocessor_of_the_runner_is_handed_on():
    cfg = classifier()
    preprocessor = cfg.pop('data_preprocessor')
    assert plugged(cfg, data_preprocessor=preprocessor).data_preprocessor.mean.flatten().tolist() == [1.] * 3
    other = dict(preprocessor, mean=[9.] * 3)
    assert plugged(classifier(), data_preprocessor=other).data_preprocessor.mean.flatten().tolist() == [1.] * 3


def test_settings_of_the_model_beside_the_rules():
    """Tools switch off parts of a model that they find by name; anything else would be lost."""
    plugged(classifier(), train_cfg=None, pretrained=None)
    with pytest.raises(PlugError, match=r'does not take backbone: .* as model\.model\.backbone of --cfg-options'):
        plugged(classifier(), backbone=dict(depth=18))


def test_a_detector_of_mmdet():
    """Heads draw every convolution in them anew, but not those of the operators; maps behind proposals have no size."""
    cfg = read_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.update(init_cfg=None, base_channels=8)
    cfg.neck.update(in_channels=[32, 64, 128, 256], out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.out_channels = cfg.roi_head.bbox_head.in_channels = 16
    cfg._scope_ = 'mmdet'
    rules = [*RULES, dict(target=r're:neck\.fpn_convs.*', to=dict(type='plugconv_mm.GnConv2d', order=2)),
             dict(target='rpn_head.rpn_conv', to=dict(type='plugconv_mm.KWConv2d'), start='residual')]
    model = plugged(cfg, rules=rules, input_size=(128, 128))
    assert type(model).__name__ == 'FasterRCNN'
    model.init_weights()
    losses = model.eval().backbone(torch.rand(1, 3, 128, 128))
    assert [tuple(x.shape[1:]) for x in model.neck(losses)] == [(16, 32, 32), (16, 16, 16), (16, 8, 8), (16, 4, 4),
                                                               (16, 2, 2)]


def test_weights_of_a_detector_with_another_neck(tmp_path, capsys):
    """HorFPN takes the lateral convolutions of an FPN; the log names the others, and nothing else."""
    cfg = read_config(str(ROOT / 'configs/plugged/faster-rcnn_r50-parc_horfpn_1x_coco.py')).model
    inner = cfg.model
    inner.backbone.update(init_cfg=None, base_channels=8)
    inner.neck.update(in_channels=[32, 64, 128, 256], out_channels=16)
    inner.rpn_head.update(in_channels=16, feat_channels=16)
    inner.roi_head.bbox_roi_extractor.out_channels = inner.roi_head.bbox_head.in_channels = 16
    inner._scope_ = 'mmdet'
    source = MODELS.build(dict(inner, neck=dict(inner.neck, type='FPN')))
    write_checkpoint({'state_dict': source.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    model = MODELS.build(dict(cfg, checkpoint=str(tmp_path / 'x.pth')))
    capsys.readouterr()
    model.init_weights()
    said = capsys.readouterr()
    lists = re.findall(r'(unexpected key|missing keys) in source state_dict: (.*)', said.out + said.err)
    assert sorted(what for what, _ in lists) == ['missing keys', 'unexpected key']
    assert all(re.match(r'neck\.fpn_convs\.\d\.', name) for _, names in lists for name in names.split(', '))
    state = model.state_dict()
    taken = [name for name in source.state_dict() if not name.startswith('neck.fpn_convs.')]
    assert len(taken) > 300
    for name in taken:
        own = re.sub(r'(backbone\.layer4\.[12]\.conv2)\.', r'\1.base.', name)
        assert torch.equal(state[own], source.state_dict()[name]), name


def test_rules_that_do_not_fit_end_before_any_training():
    with pytest.raises(PlugError, match='means no convolution'):
        plugged(classifier(), rules=[dict(target='backbone.layer5', to=dict(type='plugconv_mm.ParCHW2d'))])


# -- checkpoints

def test_a_checkpoint_of_a_training_knows_its_rules(tmp_path):
    """They are in its config, of which the model can be built."""
    cfg = Config(dict(model=dict(type='plugconv_mm.plug', model=classifier(), rules=RULES, input_size=(64, 96))))
    model = MODELS.build(cfg.model)
    write_checkpoint({'state_dict': model.state_dict(), 'meta': {'cfg': cfg.pretty_text}}, tmp_path / 'x.pth')
    read = Config.fromstring(read_checkpoint(tmp_path / 'x.pth')['meta']['cfg'], '.py')
    assert read.model.rules == RULES
    assert read.model.rules[0]['target'] == RULES[0]['target']
    again = MODELS.build(read.model)
    load_checkpoint(again, str(tmp_path / 'x.pth'))
    assert torch.equal(again.eval()(X), model.eval()(X))


@pytest.mark.parametrize('start', ['residual', 'scratch'])
def test_a_plugged_checkpoint_and_the_model_as_it_was(start, tmp_path):
    """None stands in for the other without a word; a training may start from the model as it was."""
    rules = [dict(RULES[0], start=start)]
    plain, with_rules = MODELS.build(classifier()), plugged(classifier(), rules=rules)
    files = {}
    for name, model in (('plain', plain), ('plugged', with_rules)):
        files[name] = tmp_path / f'{name}.pth'
        write_checkpoint({'state_dict': model.state_dict(), 'meta': {}}, files[name])
    said = 'plugged into 2 of its layers, e.g. backbone.layer4.1.conv2, and ImageClassifier has none there. ' \
           "Give the config of its training, with type='plugconv_mm.plug'"
    with pytest.raises(CheckpointError, match=said if start == 'residual' else 'is a checkpoint of another model'):
        load_weights(plain, files['plugged'])
    if start == 'residual':
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(plain, str(files['plugged']))
        with pytest.raises(CheckpointError, match=said.replace('backbone.layer4', 'layer4').replace(
                'ImageClassifier', 'ResNet')):
            MODELS.build(dict(classifier().backbone, init_cfg=dict(
                type='Pretrained', checkpoint=str(files['plugged']), prefix='backbone.'))).init_weights()
    with pytest.raises(CheckpointError, match='It has no operator for 2 of the plugged layers, e.g. backbone.layer4.1.c'
                       if start == 'residual' else 'is a checkpoint of another model'):
        load_weights(with_rules, files['plain'])
    load_checkpoint(with_rules, str(files['plain']))
    load_weights(with_rules, files['plugged'])
