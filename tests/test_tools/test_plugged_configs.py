"""The commands, and OpenMMLab's own ways to train and predict, with a config whose model has operators plugged in."""
import json
import re

import cv2
import numpy as np
import pytest
import torch

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from repository import ROOT, load_file, tool  # noqa: E402
from run_logs import figures  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint  # noqa: E402
from plugconv_mm.datasets import build_digits  # noqa: E402
from plugconv_mm.runtime.weights import build_with_weights  # noqa: E402

LAYERS = ['backbone.layer2.1.conv2', 'backbone.layer2.2.conv2', 'backbone.layer2.3.conv2']


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """The worked config, thinner and with few images; two iterations an epoch, and an average of the weights."""
    folder = tmp_path_factory.mktemp('plugged')
    build_digits(folder / 'digits', num_train=4, num_val=2, log=lambda line: None)
    thin = folder / 'thin.py'
    thin.write_text(f"""
_base_ = '{ROOT}/configs/digits/mask-rcnn_parc-resnet50-thin-gnconv_horfpn_digits.py'
model = dict(model=dict(backbone=dict(base_channels=4), neck=dict(in_channels=[16, 32, 64, 128])))
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{folder}/digits/'))
val_dataloader = test_dataloader = dict(dataset=dict(data_root='{folder}/digits/'))
val_evaluator = test_evaluator = dict(ann_file='{folder}/digits/annotations/instances_val.json')
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1), logger=dict(interval=1))
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook')]
log_level = 'ERROR'
""")
    return str(thin)


def train(config, work_dir, *options):
    tool('train').main([config, '--work-dir', str(work_dir), *options])


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    train(config, work_dir)
    return work_dir


@pytest.fixture
def image(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8))
    return tmp_path / 'x.png'


def test_checkpoints_have_the_plugged_names_and_know_the_rules(trained, config):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    state = checkpoint['state_dict']
    for layer in LAYERS:
        assert state[f'{layer}.gamma'].any() and f'{layer}.base.weight' in state
        assert any(key.startswith(f'{layer}.new.') for key in state)
    rules = Config.fromstring(checkpoint['meta']['cfg'], '.py').model.rules
    assert rules == Config.fromfile(config).model.rules and rules[0].to.type == 'plugconv_mm.GnConv2d'
    average = checkpoint['ema_state_dict']
    assert {key.removeprefix('module.') for key in average} == {*state, 'steps'}


# Within an epoch, and between two.
@pytest.mark.parametrize('start', ['iter_1', pytest.param('iter_2', marks=pytest.mark.slow)])
def test_a_resumed_training_ends_as_the_whole(start, trained, config, tmp_path):
    train(config, tmp_path, '--resume', str(trained / f'{start}.pth'))
    whole, resumed = (read_checkpoint(folder / 'iter_4.pth') for folder in (trained, tmp_path))
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(resumed[key], whole[key], rtol=0, atol=0)
    assert figures(tmp_path) == figures(trained)


@pytest.mark.slow
def test_evaluation(trained, config, tmp_path):
    """The same figures as after the training, of the average; those of boxes alone with several views."""
    out = tmp_path / 'figures.json'
    tool('test').main([config, str(trained / 'iter_4.pth'), '--work-dir', str(tmp_path), '--out', str(out),
                       '--out-item', 'metrics'])
    found = json.loads(out.read_text())
    assert {key: value for key, value in found.items() if key.startswith('coco/')} == figures(trained)
    with pytest.warns(UserWarning, match='box AP only'):
        tool('test').main([config, str(trained / 'iter_4.pth'), '--work-dir', str(tmp_path), '--out', str(out),
                           '--out-item', 'metrics', '--tta'])
    assert not [key for key in json.loads(out.read_text()) if 'segm' in key]


@pytest.mark.slow
def test_a_checkpoint_without_operators_is_not_evaluated(trained, config, tmp_path):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    state = {key.replace('.base.', '.'): value for key, value in checkpoint['state_dict'].items()
             if not key.startswith(tuple(f'{layer}.{part}' for layer in LAYERS for part in ('new.', 'gamma')))}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'plain.pth')
    with pytest.raises(SystemExit, match='has no operator for 3 of the plugged layers.* with checkpoint=FILE'):
        tool('test').main([config, str(tmp_path / 'plain.pth'), '--work-dir', str(tmp_path)])
    plain = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
    with pytest.raises(SystemExit, match='operators plugged into 3 of its layers.* MaskRCNN has none there'):
        load_file('demo/image_demo.py').main(['.', plain, str(trained / 'iter_4.pth'), '--out-dir', str(tmp_path)])
    # a training starts from it
    train(config, tmp_path, '--cfg-options', f'model.checkpoint={tmp_path}/plain.pth', 'train_cfg.max_epochs=1',
          'optim_wrapper.optimizer.lr=0')
    after = read_checkpoint(tmp_path / 'iter_2.pth')['state_dict']
    assert all(torch.equal(after[f'{layer}.base.weight'], state[f'{layer}.weight']) for layer in LAYERS)
    assert not any(after[f'{layer}.gamma'].any() for layer in LAYERS)
    with pytest.raises(SystemExit, match=r'model\.checkpoint=FILE, or start from random weights with model\.check'):
        train(config, tmp_path, '--cfg-options', 'model.checkpoint=absent.pth')


def test_demo(trained, config, image, tmp_path):
    load_file('demo/image_demo.py').main([str(image), config, str(trained / 'iter_4.pth'), '--out-dir',
                                          str(tmp_path / 'out'), '--score-thr', '0'])
    assert (cv2.imread(str(tmp_path / 'out/x.png')) != cv2.imread(str(image))).any()


@pytest.mark.slow
def test_costs(config, capsys, tmp_path):
    plain = tmp_path / 'plain.py'
    plain.write_text(f"_base_ = '{config}'\nmodel = dict(_delete_=True, **_base_.model.model)\n")
    numbers = []
    for given in (str(plain), config):
        tool('analysis_tools/get_flops').main([given, '--shape', '320'])
        numbers.append([float(x) for x in re.search(
            r'multiply-adds \(G\)(.*)', capsys.readouterr().out)[1].split()])
    assert numbers[1][0] > numbers[0][0] and numbers[1][1:3] == numbers[0][1:3]  # more in the backbone alone
    tool('analysis_tools/compare').main([str(plain), config, '--shape', '64', '64', '--rounds', '1', '--out',
                                         str(tmp_path)])
    first, second = json.loads((tmp_path / 'compare.json').read_text())['models']
    assert second['whole']['params'] > first['whole']['params']


@pytest.mark.parametrize('options', [['--stage', '1'], ['--part', 'neck'], ['--stage', '3', '--checkpoint']])
def test_receptive_fields(options, trained, config, tmp_path):
    out = tmp_path / 'erf.png'
    options = [*options, str(trained / 'iter_4.pth')] if '--checkpoint' in options else options
    tool('analysis_tools/erf').main([config, '--size', '64', '--num', '1', *options, '--out', str(out)])
    row = json.loads(out.with_suffix('.json').read_text())['models']['thin']
    assert 0 < row['ratios'][0] <= row['ratios'][3] <= 1


def test_receptive_field_of_layers_that_share(tmp_path):
    """Their warehouse is beside the backbone, and its weights are those of the checkpoint, too."""
    from plugconv_mm.analysis.features import map_of_config
    from plugconv_mm.runtime.build import build_model
    cfg = Config.fromfile('configs/digits/faster-rcnn_r50-thin-parc_horfpn_digits.py')
    cfg.model.rules = [dict(target=r're:backbone\.layer1\..*conv2', to=dict(type='plugconv_mm.KWConv2d',
                                                                             share='stage'))]
    model = build_model(cfg).eval()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'x.pth')
    x = torch.rand(1, 3, 64, 64)
    found = map_of_config(cfg, 'x', stage=0, checkpoint=tmp_path / 'x.pth')
    torch.testing.assert_close(found(x), model.backbone(x)[0])


@pytest.mark.slow
def test_export(trained, config, tmp_path, capsys):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    tool('deploy/export_onnx').main([config, str(trained / 'iter_4.pth'), '--shape', '64', '64', '--out',
                                     str(tmp_path / 'x.onnx')])
    assert 'backbone and neck of the detector' in capsys.readouterr().out and (tmp_path / 'x.onnx').stat().st_size > 1e5


@pytest.mark.slow
def test_the_runner_of_mmengine(config, tmp_path):
    """Trains, without a tool, and leaves a checkpoint that the tools take."""
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.experiment_name = str(tmp_path), str(tmp_path)
    cfg.train_cfg.max_epochs = 1
    Runner.from_cfg(cfg).train()
    model = build_with_weights(Config.fromfile(config), str(tmp_path / 'iter_2.pth'))
    assert all(model.get_submodule(layer).gamma.any() for layer in LAYERS)


def test_a_model_of_mmseg(tmp_path):
    """Its function switches off parts of the config of the model."""
    from mmseg.apis import init_model
    path = tmp_path / 'x.py'
    path.write_text(f"""
_base_ = '{ROOT}/configs/digits/upernet_parc-resnet50-thin_digits.py'
model = dict(_delete_=True, type='plugconv_mm.plug', model={{{{_base_.model}}}}, rules=[
    dict(target='backbone.layer2.1.conv2', to=dict(type='plugconv_mm.GnConv2d'), start='residual')])
""")
    model = init_model(str(path), device='cpu')
    assert type(model).__name__ == 'EncoderDecoder' and not model.backbone.layer2[1].conv2.gamma.any()


def test_predictions_of_mmdet(config, trained, image):
    """The model of the config, and that of a checkpoint alone, which has its config in it."""
    from mmdet.apis import DetInferencer, inference_detector, init_detector
    checkpoint = str(trained / 'iter_4.pth')
    ours = build_with_weights(Config.fromfile(config), checkpoint)
    model = init_detector(config, checkpoint, device='cpu', cfg_options={})
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), ours.state_dict().values(), strict=True))
    scores = inference_detector(model, str(image)).pred_instances.scores
    inferencer = DetInferencer(weights=checkpoint, device='cpu', show_progress=False)
    found = inferencer(str(image), no_save_vis=True, pred_score_thr=0)['predictions'][0]
    assert found['scores'] == pytest.approx(scores.tolist())
