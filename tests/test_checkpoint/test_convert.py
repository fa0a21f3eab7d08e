"""convert_official: published names become ours."""
import re

import pytest
import recorded
import torch

from plugconv_mm import checkpoint as module
from plugconv_mm.checkpoint import convert_official, read_checkpoint, write_checkpoint


def published(name):
    """A published checkpoint with the recorded names and shapes; each tensor is told by its first value."""
    return {key: torch.full(shape, float(number)) for number, (key, shape) in enumerate(recorded.load(name)['keys'])}


@pytest.fixture(scope='module')
def resnet():
    return published('parc_resnet50')


@pytest.fixture(scope='module')
def neck():
    return published('horfpn_gf')


def same(a, b):
    return a.keys() == b.keys() and all(a[key] is b[key] for key in a)


def test_parc_resnet_names(resnet):
    ours = convert_official(resnet)
    for old, new in (('layer3.3.parc_H.pe', 'layer3.3.conv2.parc_h.position_embedding'),
                     ('layer4.2.parc_W.gcc_conv.weight', 'layer4.2.conv2.parc_w.weight'),
                     ('layer3.5.parc_W.gcc_conv.bias', 'layer3.5.conv2.parc_w.bias'),
                     ('layer3.0.conv2.weight', 'layer3.0.conv2.weight'),
                     ('layer1.0.downsample.1.running_var', 'layer1.0.downsample.1.running_var')):
        assert ours[new] is resnet[old]
    assert len(ours) == len(resnet)


def test_horfpn_names(neck):
    ours = convert_official(neck)
    assert ours['fpn_convs.2.conv.dwconv.complex_weight'] is neck['fpn_convs.2.dwconv.complex_weight']
    assert ours['lateral_convs.1.conv.bias'] is neck['lateral_convs.1.conv.bias']
    assert len(ours) == len(neck)


def test_a_neck_with_extra_levels_and_norm():
    state = {'fpn_convs.0.proj_in.weight': torch.zeros(8, 4, 1, 1), 'fpn_convs.0.bn.weight': torch.ones(4),
             'fpn_convs.1.conv.weight': torch.zeros(4, 4, 3, 3)}
    assert set(convert_official(state)) == {
        'fpn_convs.0.conv.proj_in.weight', 'fpn_convs.0.bn.weight', 'fpn_convs.1.conv.weight'}


@pytest.mark.parametrize('wrap', [
    lambda s: {'model': s, 'epoch': 3},
    lambda s: {'state_dict': s, 'meta': {}},
    lambda s: {'model': {'state_dict': s}},
    lambda s: {f'module.{k}': v for k, v in s.items()},
    lambda s: {f'_orig_mod.module.{k}': v for k, v in s.items()},
    lambda s: {'model': {f'module.backbone.{k}': v for k, v in s.items()}},
    lambda s: {**s, 'fc.weight': torch.zeros(10, 4), 'fc.bias': torch.zeros(10)},
    lambda s: {**{f'backbone.{k}': v for k, v in s.items()}, 'head.fc.weight': torch.zeros(10, 4)},
], ids=['model', 'state_dict', 'nested', 'module.', 'compiled', 'module.backbone.', 'classifier', 'mmpretrain'])
def test_wrappers_prefixes_and_classifiers_come_off(resnet, wrap):
    assert same(convert_official(wrap(resnet)), convert_official(resnet))


@pytest.mark.parametrize('name', ['parc_resnet50', 'horfpn_7x7', 'horfpn_gf'])
def test_what_is_ours_passes_unchanged(name):
    ours = convert_official(published(name))
    assert same(convert_official(ours), ours)


def test_a_whole_detector_keeps_its_prefixes(resnet, neck):
    detector = {**{f'backbone.{k}': v for k, v in resnet.items()}, **{f'neck.{k}': v for k, v in neck.items()},
                'rpn_head.rpn_conv.weight': torch.zeros(1), 'roi_head.bbox_head.fc_cls.weight': torch.zeros(1)}
    ours = convert_official({'state_dict': detector, 'optimizer': {}})
    expected = {**{f'backbone.{k}': v for k, v in convert_official(resnet).items()},
                **{f'neck.{k}': v for k, v in convert_official(neck).items()},
                **{k: v for k, v in detector.items() if not k.startswith(('backbone.', 'neck.'))}}
    assert same(ours, expected)
    assert same(convert_official(ours), expected)


def test_other_parts_of_a_detector_pass_as_they_are(neck):
    detector = {'backbone.layers.0.qkv.weight': torch.zeros(1), **{f'neck.{k}': v for k, v in neck.items()}}
    assert 'backbone.layers.0.qkv.weight' in convert_official(detector)


def test_a_whole_classifier():
    state = published('cls_parcnet_s')
    ours = convert_official(state, classifier=True)
    for old, new in (('layer_3.1.dim_adaptive.0.block.conv.weight', 'backbone.layer_3.1.dim_adaptive.0.conv.weight'),
                     ('conv_1x1_exp.block.conv.weight', 'neck.conv.0.weight'),
                     ('conv_1x1_exp.block.norm.running_var', 'neck.conv.1.running_var'),
                     ('classifier.fc.bias', 'head.fc.bias')):
        assert ours[new] is state[old]
    assert same(convert_official({'model': {f'module.{k}': v for k, v in state.items()}}, classifier=True), ours)
    assert {key.removeprefix('backbone.') for key in ours if key.startswith('backbone.')} == set(
        convert_official(state))


@pytest.mark.parametrize('name', [
    path.stem for path in sorted(recorded.FOLDER.glob('cls_*.json'))])
def test_a_whole_classifier_of_ours_passes_unchanged(name):
    ours = convert_official(published(name), classifier=True)
    assert same(convert_official(ours, classifier=True), ours)
    assert same(convert_official({'state_dict': ours, 'meta': {}}, classifier=True), ours)


@pytest.mark.parametrize('name', ['parc_resnet50', 'hornet_tiny_7x7', 'horfpn_7x7'])
def test_there_is_no_classifier(name):
    with pytest.raises(ValueError, match=r'^there is no classifier among the \d+ keys: .* a backbone alone, or of a'):
        convert_official(published(name), classifier=True)


def test_the_argument_is_not_changed(resnet):
    wrapped = {'model': dict(resnet)}
    convert_official(wrapped)
    assert list(wrapped) == ['model'] and same(wrapped['model'], resnet)


def test_unknown_keys_are_counted_and_named(resnet):
    extra = {f'layer1.0.attention.{i}': torch.zeros(1) for i in range(7)}
    with pytest.raises(ValueError, match=r"^7 of 345 keys are unknown in a ParC-ResNet .*layer1\.0\.attention\.0'.*"
                                         r', \.\.\..* known: .*HorFPN'):
        convert_official({**resnet, **extra})


@pytest.mark.parametrize('state, message', [
    ({'conv.weight': torch.zeros(1)}, r"'conv\.weight'.*Families known: ParC-ResNet, HorFPN"),
    ({'backbone.conv.weight': torch.zeros(1), 'bbox_head.w': torch.zeros(1)}, 'tells a family'),
    ({}, 'empty'),
    ({'model': {}}, 'empty'),
    ({'epoch': 3}, "1 of 1 entries do not, e.g. 'epoch'"),
    ([torch.zeros(1)], 'got list'),
])
def test_what_is_no_published_checkpoint(state, message):
    with pytest.raises(ValueError, match=message):
        convert_official(state)


def test_shapes_must_agree_with_names(resnet):
    key = 'layer3.3.parc_H.gcc_conv.weight'
    with pytest.raises(ValueError, match=r'parc_H\.gcc_conv\.weight.*\(128, 128, 1, 14\), expected \(\*, \*, \*, 1\)'):
        convert_official({**resnet, key: resnet[key].transpose(2, 3)})


def test_two_names_for_one_tensor(resnet):
    with pytest.raises(ValueError, match='both become'):
        convert_official({**resnet, 'layer3.3.conv2.parc_h.position_embedding': torch.zeros(1, 128, 14, 1)})


def test_each_record_belongs_to_one_family():
    for path in recorded.FOLDER.glob('*.json'):
        keys = [key.removeprefix('encoder.') for key, _ in recorded.load(path.stem).get('keys', [])]
        found = [f.name for f in module.FAMILIES if any(re.search(f.signature, key) for key in keys)]
        assert len(found) == bool(keys), path.stem


@pytest.mark.parametrize('source, target', [('pth', 'safetensors'), ('safetensors', 'pth')])
def test_tool(tmp_path, neck, tool, source, target):
    source, target = tmp_path / f'published.{source}', tmp_path / f'ours.{target}'
    write_checkpoint(neck, source)
    status, said, complaint = tool('convert_official.py', source, target)
    assert status == 0, complaint
    assert 'HorFPN: 56 tensors, 48 of them renamed, 0 dropped' in said
    ours, expected = read_checkpoint(target), convert_official(neck)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in ours)


def test_tool_keeps_the_classifier(tmp_path, tool):
    state = published('cls_parc_resnet50')
    write_checkpoint({'model': state, 'epoch': 299}, tmp_path / 'published.pth')
    status, said, complaint = tool('convert_official.py', tmp_path / 'published.pth', tmp_path / 'ours.pth',
                                   '--classifier')
    assert status == 0, complaint
    assert f'ParC-ResNet: {len(state)} tensors' in said and ' 0 dropped' in said
    ours = read_checkpoint(tmp_path / 'ours.pth')
    assert {'backbone.conv1.weight', 'head.fc.weight', 'head.fc.bias'} <= ours.keys()
    write_checkpoint({key: value for key, value in state.items() if 'fc' not in key}, tmp_path / 'bare.pth')
    status, _, complaint = tool('convert_official.py', tmp_path / 'bare.pth', tmp_path / 'none.pth', '--classifier')
    assert status == 1 and complaint.startswith('error: there is no classifier')
    assert not (tmp_path / 'none.pth').exists()


def test_tool_takes_an_entry(tmp_path, neck, tool):
    averaged = {key: value + 1 for key, value in neck.items()}
    write_checkpoint({'model': neck, 'model_ema': averaged}, tmp_path / 'published.pth')
    for source, expected, choice in (('published.pth', neck, True), ('published.pth#model_ema', averaged, False)):
        status, said, complaint = tool('convert_official.py', tmp_path / source, tmp_path / 'ours.pth')
        assert status == 0, complaint
        assert ("those under 'model' are used; #model_ema behind" in said) == choice
        ours, expected = read_checkpoint(tmp_path / 'ours.pth'), convert_official(expected)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
    status, _, complaint = tool('convert_official.py', tmp_path / 'published.pth#ema', tmp_path / 'ours.pth')
    assert status == 1 and "no weights under 'ema'; its entries are 'model', 'model_ema'" in complaint


def test_tool_says_what_is_wrong(tmp_path, tool):
    source, target = tmp_path / 'other.pth', tmp_path / 'ours.pth'
    write_checkpoint({'conv.weight': torch.zeros(1)}, source)
    target.write_bytes(b'old')
    for path, message in ((tmp_path / 'missing.pth', 'there is no checkpoint'), (source, 'tells a family')):
        status, _, complaint = tool('convert_official.py', path, target)
        assert status == 1
        assert complaint.startswith('error: ') and message in complaint
    assert target.read_bytes() == b'old'
