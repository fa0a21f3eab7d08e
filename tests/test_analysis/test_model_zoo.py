"""The metafiles and the READMEs beside the configs, against the configs, what is measured and what is published."""
from copy import deepcopy
from pathlib import Path

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from plugconv_mm.analysis import build_model, measure  # noqa: E402
from plugconv_mm.analysis.model_zoo import (  # noqa: E402
    FAMILIES,
    configs_of,
    dataset_of,
    describe,
    disagreements,
    image_size,
    name_of,
    read,
    with_tables,
    write,
)
from plugconv_mm.models.backbones import HATNet  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

ROOT = Path(__file__).parents[2]
MODELS = [model for family in FAMILIES for model in read(ROOT / f'configs/{family}/metafile.yml')['Models']]
BY_CONFIG = {model['Config'].removeprefix('configs/').removesuffix('.py'): model for model in MODELS}
QUICK = [
    'hornet/hornet-tiny-gf_32xb128_in1k', 'parc/parcnet-s_8xb128_in1k-256px',
    'parc/cascade-mask-rcnn_parc-mobilenetv2_fpn_ms-480-800-3x_coco', 'slak/slak-tiny_32xb128_in1k',
    'kernel_warehouse/kw1x-mobilenetv2-050_8xb32_in1k', 'horfpn/upernet_r50_8xb2-160k_ade20k-512x512']
# From the papers of the baselines (Swin, ConvNeXt) and mmdet's documentation: millions of parameters, G at the same
# sizes of images.
BASELINES = {
    'horfpn/mask-rcnn_r50_fpn_ms-480-800-1x_coco': (44, 260), 'horfpn/mask-rcnn_r101_fpn_ms-480-800-1x_coco': (63, 336),
    'horfpn/mask-rcnn_swin-s_fpn_ms-480-800-1x_coco': (69, 359),
    'horfpn/upernet_r101_8xb2-160k_ade20k-512x512': (86, 1029),
    'horfpn/upernet_swin-s_8xb2-160k_ade20k-512x512': (81, 1038),
    'kernel_warehouse/mask-rcnn_convnext-tiny_fpn_ms-480-800-1x_coco': (48, 262),
    'parc/cascade-mask-rcnn_r50_fpn_ms-480-800-3x_coco': (82, 739),
    'slak/cascade-mask-rcnn_convnext-tiny_fpn_ms-480-800-3x_coco': (86, 741),
    'slak/upernet_convnext-tiny_8xb2-160k_ade20k-512x512': (60, 939)}


def load(config):
    return load_config(make_parser('', runs=False).parse_args([str(ROOT / 'configs' / f'{config}.py')]))


@pytest.mark.parametrize('config', [pytest.param(config, marks=() if config in QUICK else pytest.mark.slow)
                                    for config in sorted({*BY_CONFIG, *QUICK})])
def test_entries_are_what_is_measured(config):
    cfg = load(config)
    cost = measure(build_model(cfg), image_size(Path(config).name))
    written = BY_CONFIG[config]
    found = describe(ROOT / f'configs/{config}.py', cfg, cost, written['In Collection'], written)
    assert found == written, 'run tools/misc/update_model_zoo.py'


@pytest.mark.parametrize('family', FAMILIES)
def test_every_config_has_an_entry(family):
    metafile = read(ROOT / f'configs/{family}/metafile.yml')
    folder = ROOT / 'configs' / family
    assert [model['Name'] for model in metafile['Models']] == [name_of(path) for path in configs_of(folder)]
    collections = {collection['Name'] for collection in metafile['Collections']}
    for model in metafile['Models']:
        assert model['In Collection'] in collections
        assert name_of(ROOT / model['Config']) == model['Name']
        assert ('Results' in model) == (model['Metadata'].get('Results From') == 'paper')
    for collection in metafile['Collections']:
        assert (ROOT / collection['README']).is_file()
        assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')


@pytest.mark.parametrize('family', FAMILIES)
def test_readme_holds_the_tables(family):
    text = (ROOT / f'configs/{family}/README.md').read_text(encoding='utf-8')
    models = read(ROOT / f'configs/{family}/metafile.yml')['Models']
    assert with_tables(text, models) == text, 'run tools/misc/update_model_zoo.py --tables'
    assert all(f'bash tools/dist_train.sh {model["Config"]} ' in text for model in models)


def test_the_index_finds_every_model():
    index = read(ROOT / 'model-index.yml')
    assert index == {'Import': [f'configs/{family}/metafile.yml' for family in FAMILIES]}
    assert len({model['Name'] for model in MODELS}) == len(MODELS), 'mim finds models by their names'
    loader = pytest.importorskip('modelindex.load_model_index')
    models = loader.load(str(ROOT / 'model-index.yml')).models
    assert sorted(model.name for model in models) == sorted(model['Name'] for model in MODELS)


def test_published_figures():
    """All within three percent, but for those whose note says why not."""
    assert not list(disagreements([model for model in MODELS if 'Note' not in model['Metadata']]))
    noted = [model for model in MODELS if 'Note' in model['Metadata']]
    assert all(any(disagreements([model])) for model in noted), 'a note that explains nothing'
    assert sum('Published FLOPs' in model['Metadata'] for model in MODELS) >= 32


@pytest.mark.parametrize('config', BASELINES)
def test_baselines_agree_with_their_own_papers(config):
    model = deepcopy(BY_CONFIG[config])
    params, macs = BASELINES[config]
    model['Metadata'] |= {'Published Parameters': f'{params}M', 'Published FLOPs': f'{macs}G'}
    assert not list(disagreements([model]))


def test_notes_on_figures_that_differ():
    """What the notes say of them, computed."""
    in1k = BY_CONFIG['hornet/hornet-large-7x7_64xb64_in21k']['Metadata']
    assert round((in1k['Parameters'] - 1537 * (21841 - 10450)) / 1e6) == 209
    xt = BY_CONFIG['parc/parc-convnext-xt_8xb128_in1k']['Metadata']
    assert round(xt['FLOPs'] * (160 / 224)**2 / 1e9, 1) == 0.6
    gates = sum(blocks * 2 * width * (width // 16) * side**2  # of ParC-Net-S, as if at every position
                for blocks, width, side in ((2, 384, 32), (4, 512, 16), (3, 640, 8)))
    parcnet = BY_CONFIG['parc/parcnet-s_8xb128_in1k-256px']['Metadata']
    assert (parcnet['FLOPs'] + gates) / 1e9 == pytest.approx(1.74, rel=0.02)
    for size in HATNet.arch_settings:
        hat_net = BY_CONFIG[f'transcnn/hat-net-{size}_8xb128_in1k']['Metadata']
        arch = HATNet.arch_settings[size]
        # for each position keys and values of a window, or of the whole map, then those of the pooled map
        attention = sum(blocks * positions * 2 * keys * width for blocks, width, positions, keys in zip(
            arch['depths'], arch['channels'], (56**2, 28**2, 14**2, 7**2), (64 + 49, 49 + 49, 49 + 49, 49),
            strict=True))
        assert f'{(hat_net["FLOPs"] - attention) / 1e9:.1f}G' == hat_net['Published FLOPs']


@pytest.mark.parametrize('config, millions', [
    ('slak-tiny_32xb128_in1k', 30), ('slak-small_32xb128_in1k', 55), ('slak-base_32xb128_in1k', 95),
    ('slak-tiny-31x31_32xb128-120e_in1k', 30), ('slak-tiny-61x61_32xb128-120e_in1k', 31),
    ('upernet_slak-tiny_8xb2-160k_ade20k-512x512', 65), ('upernet_slak-small_8xb2-160k_ade20k-512x512', 91),
    ('upernet_slak-base_8xb2-160k_ade20k-512x512', 135)])
def test_slak_without_its_zeros(config, millions):
    model = build_model(load(f'slak/{config}'))
    params = {name: p.numel() for name, p in model.named_parameters()}
    sparse = sum(count for name, count in params.items() if name.startswith('backbone.'))
    assert (sum(params.values()) - 0.4 * sparse) / 1e6 == pytest.approx(millions, rel=0.03)


def test_names_of_configs():
    assert dataset_of('a_8xb128_in1k-256px') == 'in1k' and image_size('a_8xb128_in1k-256px') == (256, 256)
    assert image_size('a_ade20k-640x640') == (640, 2560) and image_size('a_coco') == (800, 1280)
    assert image_size('a_in21k') == (224, 224) and image_size('a_coco-320px') == (320, 320)
    assert dataset_of('a_cityscapes-512x1024') == 'cityscapes' and image_size('a_cityscapes-512x1024') == (1024, 2048)
    assert dataset_of('a_voc12aug-512x512') == 'voc12aug' and image_size('a_voc12aug-512x512') == (512, 512)
    with pytest.raises(ValueError, match='ends in _in1k, _in21k, _coco.*; got mask-rcnn'):
        dataset_of('mask-rcnn')


def test_what_is_written_by_hand_stays(tmp_path):
    model = deepcopy(BY_CONFIG['parc/parc-convnext-xt_8xb128_in1k'])
    path = tmp_path / 'metafile.yml'
    write(path, dict(Models=[model]))
    assert read(path) == dict(Models=[model]) and [p.name for p in tmp_path.iterdir()] == ['metafile.yml']
    before = '# Title\n\nText.\n'
    once = with_tables(before, [model])
    assert once.startswith(before) and '7.41M' in once and '\n1. ' in once
    model['Metadata']['Parameters'] = 12_345_678
    again = with_tables(once + '\nMore.\n', [model])
    assert again.count('12.35M') == 1 and '| 7.41M |' not in again and again.endswith('-->\n\nMore.\n')
