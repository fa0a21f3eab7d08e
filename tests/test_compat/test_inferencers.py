"""Our configs by name in the inferencers of mmdet, mmseg and mmpretrain."""
import os
import re
import shutil
import subprocess
import sys

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from mmdet.apis import DetInferencer  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmpretrain import ImageClassificationInferencer, get_model  # noqa: E402
from mmseg.apis import MMSegInferencer  # noqa: E402
from repository import ROOT  # noqa: E402

from plugconv_mm.compat import inferencers, packages  # noqa: E402
from plugconv_mm.runtime.build import build_model  # noqa: E402
from plugconv_mm.runtime.prediction import Predictor  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402
from plugconv_mm.runtime.weights import build_with_weights  # noqa: E402

MODELS = dict(
    mmdet='parc/ssdlite_parcnet-s_4xb32-200e_coco-320px', mmseg='parc/deeplabv3_parcnet-s_4xb8-20k_voc12aug-512x512',
    mmpretrain='kernel_warehouse/kw1d2x-mobilenetv2-050_8xb32_in1k')


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return path


def predictions(scope, name, weights, image):
    """What an inferencer answers, as one tensor."""
    if scope == 'mmpretrain':
        found = ImageClassificationInferencer(name, pretrained=weights, device='cpu')(str(image))[0]
        return torch.from_numpy(found['pred_scores'])
    kind = dict(mmdet=DetInferencer, mmseg=MMSegInferencer)[scope]
    found = kind(name, weights=weights, device='cpu', show_progress=False)(str(image))['predictions']
    return torch.tensor(found[0]['scores']) if scope == 'mmdet' else torch.from_numpy(found)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('scope', MODELS)
def test_weights_of_a_file(scope, image, tmp_path):
    """They predict what the config, read as a file, does with them; upper case is no matter to these packages."""
    cfg, weights = read_config(f'{ROOT}/configs/{MODELS[scope]}.py'), str(tmp_path / 'weights.pth')
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(cfg).state_dict(), meta={}), weights)
    found = predictions(scope, MODELS[scope].partition('/')[2].upper(), weights, image)
    sample = Predictor(cfg, build_with_weights(cfg, weights))(image)
    expected = dict(mmdet=lambda: sample.pred_instances.scores, mmseg=lambda: sample.pred_sem_seg.data[0],
                    mmpretrain=lambda: sample.pred_score)[scope]()
    assert expected.numel()
    torch.testing.assert_close(found, expected.to(found.dtype))


def test_names_of_others():
    """A name of another task, or of nobody, ends in the package's own error."""
    for kind, scope in ((DetInferencer, 'mmdet'), (MMSegInferencer, 'mmseg')):
        for name in ('parc-resnet50_8xb128_in1k', 'none'):
            with pytest.raises(ValueError, match=f'Cannot find model: {name} in {scope}'):
                kind(name)
    for name in ('retinanet_r50_horfpn_1x_coco', 'none'):
        with pytest.raises(ValueError, match=f'Failed to find model "{name}"'):
            ImageClassificationInferencer(name)


def test_their_models_stay(monkeypatch):
    """Also where we have one of the same name, as mmpretrain's ConvNeXt."""
    from mmpretrain.apis import ModelHub
    for name in ('convnext-tiny_32xb128_in1k', 'resnet50_8xb32_in1k'):
        assert '/mmpretrain/' in ModelHub.get(name).config.filename
    assert '/parc/' in ModelHub.get('resnet50_8xb128_in1k').config.filename
    assert type(get_model('kw1d2x-mobilenetv2-050_8xb32_in1k').backbone).__name__ == 'KWMobileNetV2'
    inferencers._add_to_mmengine(sys.modules['mmengine.infer.infer'])  # as by a second install()
    for kind, scope in ((DetInferencer, 'mmdet'), (MMSegInferencer, 'mmseg')):
        names = kind.list_models(scope)
        ours = [model['Name'] for model in inferencers._own_models(scope)]
        assert len(ours) > 30 and names[-len(ours):] == ours and not set(ours) & set(names[:-len(ours)])


def test_lists_of_mmpretrain():
    names = ImageClassificationInferencer.list_models()
    assert {model['Name'] for model in inferencers._own_models('mmpretrain')} <= set(names)
    assert 'resnet50_8xb32_in1k' in names and 'retinanet_r50_horfpn_1x_coco' not in names


def test_published_weights():
    """They are those that the metafile has, where it has some."""
    models = {model['Name']: model for scope in MODELS for model in inferencers._own_models(scope)}
    assert models['hornet-tiny-7x7_32xb128_in1k']['Weights'].startswith('https://')
    assert models['retinanet_r50_horfpn_1x_coco']['Weights'] is None


def test_every_model_belongs_to_the_package_of_its_config():
    seen = set()
    for path in sorted(ROOT.glob('configs/*/metafile.yml')):
        for model in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']:
            data = model['Metadata']['Training Data']
            assert data in inferencers._SCOPES, model['Name']
            if (path.parent, data) not in seen:  # reading all configs takes long
                assert read_config(str(ROOT / model['Config'])).default_scope == inferencers._SCOPES[data]
            seen.add((path.parent, data))


@pytest.mark.parametrize('installed', [True, False])
def test_where_the_configs_are(installed, tmp_path, monkeypatch):
    """In an installed package they are in it, in a clone beside it, and in neither case elsewhere."""
    root = tmp_path / 'plugconv_mm/.mim' if installed else tmp_path
    (root / 'configs').mkdir(parents=True)
    monkeypatch.setattr(packages, '__file__', str(tmp_path / 'plugconv_mm/compat/packages.py'))
    assert packages.own_files() == root
    assert not list(inferencers._own_models('mmdet'))  # without an index
    shutil.copy(ROOT / 'model-index.yml', root)
    for path in ROOT.glob('configs/*/metafile.yml'):
        (root / 'configs' / path.parent.name).mkdir()
        shutil.copy(path, root / 'configs' / path.parent.name)
    assert f'{root}/configs/horfpn/atss_r50_horfpn_1x_coco.py' in [
        model['Config'] for model in inferencers._own_models('mmdet')]


def test_bases_in_mmseg():
    """mmengine alone reads configs with bases in mmseg, under whatever name it was installed."""
    path = next(path for path in sorted(ROOT.glob('configs/parc/*.py')) if re.search(r"'mmseg::", path.read_text()))
    assert Config.fromfile(path).model.type.endswith('EncoderDecoder')


@pytest.mark.parametrize('first', ['plugconv_mm', 'mmengine.infer'])
def test_either_import_first(first):
    """And importing ours imports nothing of theirs."""
    script = f"""
import sys
import {first}
assert ('mmengine' in sys.modules) == ({first!r} != 'plugconv_mm')
import plugconv_mm, mmengine.infer, mmseg
found = mmengine.infer.BaseInferencer.list_models('mmseg', 'horupernet')
assert len(found) == 8, found
"""
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, '-W', 'ignore', '-c', script], check=True, env=env)
