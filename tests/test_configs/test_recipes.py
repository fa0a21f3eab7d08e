"""The configs say what the papers' recipes say."""
import re
from functools import cache
from pathlib import Path

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from plugconv_mm.engine.hooks import DynamicSparsityHook  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

ROOT = Path(__file__).parents[2] / 'configs'
CONSTRUCTOR = 'plugconv_mm.LearningRateDecayOptimWrapperConstructor'
EVERYWHERE = [dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')]


@cache
def load_file(path):
    return load_config(make_parser('').parse_args([str(path)]))


def load(name):
    path, = ROOT.rglob(f'{name}.py')
    return load_file(path)


def hooks_of_its_own(cfg):
    """Those that other configs do not have."""
    return [without_scope(hook) for hook in cfg.custom_hooks if hook not in EVERYWHERE]


def hornets(template, sizes):
    """(config, drop path, learning rate, decay) of both filters of HorNets."""
    return [(template.format(f'hornet-{size}-{filter}'), *recipe) for size, recipe in sizes.items()
            for filter in ('7x7', 'gf')]


# drop path, learning rate, (decay rate, groups) or None
CASCADE = [
    *hornets('cascade-mask-rcnn_{}_fpn_ms-480-800-3x_coco', dict(
        tiny=(0.4, 2e-4, (0.7, 12)), small=(0.6, 2e-4, (0.7, 12)), base=(0.7, 2e-4, (0.8, 12)),
        large=(0.7, 1e-4, (0.7, 12)))),
    *[(f'cascade-mask-rcnn_{b}_fpn_ms-480-800-3x_coco', *recipe) for b, recipe in {
        'parc-convnext-xt': (0.4, 2e-4, (0.7, 6)), 'convnext-xt': (0.4, 2e-4, (0.7, 6)),
        'parc-resnet50': (None, 2e-4, None), 'r50': (None, 2e-4, None), 'parc-mobilenetv2': (None, 2e-4, None),
        'mobilenetv2': (None, 2e-4, None), 'slak-tiny': (0.4, 2e-4, (0.7, 6)),
        'convnext-tiny': (0.4, 2e-4, (0.7, 6))}.items()],
]


@pytest.mark.parametrize('name, drop_path, lr, decay', CASCADE)
def test_cascade_mask_rcnn(name, drop_path, lr, decay):
    cfg = load(name)
    assert_adamw(cfg, lr, 'layer_wise', decay)
    assert_coco(cfg, 36, [27, 33])
    assert cfg.model.backbone.get('drop_path_rate') == drop_path
    heads = cfg.model.roi_head.bbox_head
    assert len(heads) == 3 and all(
        head.type == 'ConvFCBBoxHead' and head.num_shared_convs == 4 and head.num_shared_fcs == 1
        and head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0) and head.reg_decoded_bbox for head in heads)
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]


MASK = [
    ('hornet-small-7x7_fpn', 0.6, (0.95, 6)), ('hornet-small-7x7_horfpn-7x7', 0.6, (0.95, 6)),
    ('hornet-small-7x7_horfpn-gf', 0.6, (0.95, 6)), ('swin-s_fpn', 0.2, None), ('swin-s_horfpn-gf', 0.2, None),
    ('parc-convnext-xt_fpn', 0.4, (0.7, 6)), ('convnext-xt_fpn', 0.4, (0.7, 6)), ('parc-resnet50_fpn', None, None),
    ('parc-mobilenetv2_fpn', None, None), ('mobilenetv2_fpn', None, None), ('kw1x-resnet50_fpn', 0.1, None),
    ('kw4x-resnet50_fpn', 0.1, None), ('kw1x-mobilenetv2_fpn', None, None), ('kw4x-mobilenetv2_fpn', None, None),
]


@pytest.mark.parametrize('name, drop_path, decay', MASK)
def test_mask_rcnn(name, drop_path, decay):
    folder = {'mobilenetv2_fpn': 'parc/'}.get(name, '')
    cfg = load(f'{folder}mask-rcnn_{name}_ms-480-800-1x_coco')
    assert_adamw(cfg, 1e-4, 'layer_wise', decay)
    assert_coco(cfg, 12, [8, 11])
    assert cfg.model.backbone.get('drop_path_rate') == drop_path


def test_other_detectors():
    assert_coco(load('cascade-mask-rcnn_slak-tiny_fpn_ms-480-800-1x_coco'), 12, [8, 11])
    assert_adamw(load('cascade-mask-rcnn_slak-tiny_fpn_ms-480-800-1x_coco'), 2e-4, 'layer_wise', (0.7, 6))
    for name in ('kw1x-convnext-tiny', 'convnext-tiny'):
        cfg = load(f'kernel_warehouse/mask-rcnn_{name}_fpn_ms-480-800-1x_coco')
        assert_coco(cfg, 12, [9, 11])
        assert_adamw(cfg, 1e-4, 'layer_wise', (0.95, 6))
    for name in ('r50_fpn', 'r101_horfpn-7x7', 'r50_horfpn-gf'):
        cfg = load(f'horfpn/mask-rcnn_{name}_ms-480-800-1x_coco')
        assert without_scope(cfg.optim_wrapper.optimizer) == dict(
            type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
        assert_coco(cfg, 12, [8, 11])


@pytest.mark.parametrize('detector', ['mask-rcnn', 'retinanet'])
@pytest.mark.parametrize('backbone, checkpoint', [
    ('transcnn-tiny', 'transcnn_tiny'), ('transcnn-small', 'transcnn_small'), ('hat-net-tiny', 'hat_net_tiny'),
    ('hat-net-small', 'hat_net_small')])
def test_detectors_with_the_recipe_of_pvt(detector, backbone, checkpoint):
    cfg = load(f'{detector}_{backbone}_fpn_1x_coco')
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.model.backbone.init_cfg.checkpoint == f'checkpoints/{checkpoint}.pth'
    assert without_scope(cfg.optim_wrapper.optimizer) == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    assert not {'constructor', 'paramwise_cfg', 'clip_grad'} & set(cfg.optim_wrapper)
    assert_schedule(cfg, 12, [8, 11])
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert [step.scale for step in loader.dataset.pipeline if 'Resize' in step.type] == [(1333, 800)]


BASELINES = [
    *[(f'parc/{kind}_{backbone}_{recipe}', f'checkpoints/{weights}.pth')
      for kind, recipe in (('mask-rcnn', 'fpn_ms-480-800-1x_coco'), ('cascade-mask-rcnn', 'fpn_ms-480-800-3x_coco'),
                           ('upernet', '8xb2-160k_ade20k-512x512'))
      for backbone, weights in (('r50', 'resnet50_8xb128'), ('mobilenetv2', 'mobilenetv2_8xb128'),
                                ('convnext-xt', 'convnext_xt'))],
    ('kernel_warehouse/mask-rcnn_r50_fpn_ms-480-800-1x_coco', 'checkpoints/resnet50_32xb128.pth'),
    ('kernel_warehouse/mask-rcnn_mobilenetv2_fpn_ms-480-800-1x_coco', 'checkpoints/mobilenetv2_8xb32.pth'),
]


@pytest.mark.parametrize('name, checkpoint', BASELINES)
def test_baselines_start_from_the_same_training(name, checkpoint):
    assert load(name).model.backbone.init_cfg.checkpoint == checkpoint
    trained, = {path.stem for path in (ROOT / name).parent.glob('*_in1k.py')} & {
        f'{Path(checkpoint).stem}_in1k', f'{Path(checkpoint).stem.replace("_", "-")}_8xb128_in1k'}
    assert load(f'{name.partition("/")[0]}/{trained}').train_cfg.max_epochs in (150, 300)


@pytest.mark.parametrize('name', ['kw1x-resnet50', 'kw4x-resnet50', 'kw1x-mobilenetv2', 'kw4x-mobilenetv2'])
def test_kernel_warehouse_is_frozen_in_detectors(name):
    backbone = load(f'mask-rcnn_{name}_fpn_ms-480-800-1x_coco').model.backbone
    assert backbone.norm_eval and backbone.frozen_stages == 1
    assert backbone.get('cell_num_ratio', 1) == int(name[2])
    assert backbone.get('sharing_range') == (('layer', ) if name == 'kw4x-mobilenetv2' else None)


# crop, drop path, (decay rate, groups), largest norm of the gradient
UPERNET = [
    ('hornet-tiny-7x7', 512, 0.4, (0.9, 6), None), ('hornet-tiny-gf', 512, 0.4, (0.9, 6), 1),
    ('hornet-small-7x7', 512, 0.3, (0.9, 12), None), ('hornet-small-gf', 512, 0.3, (0.9, 12), 1),
    ('hornet-base-7x7', 512, 0.4, (0.9, 12), None), ('hornet-base-gf', 512, 0.5, (0.9, 12), 1),
    ('hornet-large-7x7', 640, 0.4, (0.8, 12), None), ('hornet-large-gf', 640, 0.4, (0.8, 12), 0.1),
    ('parc-convnext-xt', 512, 0.4, (0.9, 6), None), ('convnext-xt', 512, 0.4, (0.9, 6), None),
    ('parc-resnet50', 512, None, None, None), ('parc-mobilenetv2', 512, None, None, None),
    ('mobilenetv2', 512, None, None, None), ('slak-tiny', 512, 0.4, (0.9, 6), None),
    ('slak-small', 512, 0.3, (0.9, 12), None), ('slak-base', 512, 0.4, (0.9, 12), None),
    ('transcnn-tiny', 512, None, None, None), ('transcnn-small', 512, None, None, None),
    ('hat-net-tiny', 512, None, None, None), ('hat-net-small', 512, None, None, None),
]


@pytest.mark.parametrize('name, crop, drop_path, decay, clip', UPERNET)
def test_upernet(name, crop, drop_path, decay, clip):
    cfg = load(f'upernet_{name}_8xb2-160k_ade20k-{crop}x{crop}')
    assert_upernet(cfg, crop, decay)
    assert cfg.model.backbone.get('drop_path_rate') == drop_path
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == clip
    if name.endswith('-gf'):
        assert cfg.model.backbone.arch.endswith('-gf-img384')


@pytest.mark.parametrize('filter', ['7x7', 'gf'])
@pytest.mark.parametrize('backbone, drop_path', [('hornet-small-7x7', 0.3), ('r50', None), ('r101', None),
                                                 ('swin-s', 0.3)])
def test_horupernet(filter, backbone, drop_path):
    cfg = load(f'horupernet-{filter}_{backbone}_8xb2-160k_ade20k-512x512')
    assert_upernet(cfg, 512, (0.9, 12))
    assert cfg.model.backbone.get('drop_path_rate') == drop_path
    assert cfg.model.decode_head.type == 'plugconv_mm.HorUPerHead'
    assert cfg.model.decode_head.get('filter', '7x7') == filter


IMAGENET = [
    ('hornet-tiny-7x7_32xb128', 0.2, 100), ('hornet-tiny-gf_32xb128', 0.2, 1), ('hornet-small-7x7_32xb128', 0.4, 5),
    ('hornet-small-gf_32xb128', 0.4, 1), ('hornet-base-7x7_32xb128', 0.5, 5), ('hornet-base-gf_32xb128', 0.5, 1),
    ('slak-tiny_32xb128', 0.1, None), ('slak-small_32xb128', 0.4, None), ('slak-base_32xb128', 0.5, None),
    *[(f'slak-tiny-{size}x{size}_32xb128-120e', 0.1, None) for size in (31, 51, 61)],
    ('kw1x-convnext-tiny_32xb128', 0.3, None),
]


@pytest.mark.parametrize('name, drop_path, clip', IMAGENET)
def test_imagenet(name, drop_path, clip):
    cfg = load(f'{name}_in1k')
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == clip
    assert without_scope(cfg.optim_wrapper.optimizer) == dict(
        type='AdamW', lr=4e-3, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999))
    assert cfg.train_cfg.max_epochs == (120 if name.endswith('120e') else 300)
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.auto_scale_lr.base_batch_size == 32 * 128
    average, *others = hooks_of_its_own(cfg)
    assert average == dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')
    assert len(others) == (1 if name.startswith(('slak', 'kw')) else 0)
    assert [augment.type for augment in cfg.model.train_cfg.augments] == ['Mixup', 'CutMix']
    magnitude = {'hornet-small-gf_32xb128': 12, 'hornet-base-gf_32xb128': 15}.get(name, 9)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.magnitude_level for step in pipeline if step.type == 'RandAugment'] == [magnitude]


@pytest.mark.parametrize('size', [31, 51, 61])
def test_kernels_of_slak_in_120_epochs(size):
    model = MODELS.build(load(f'slak-tiny-{size}x{size}_32xb128-120e_in1k').model.backbone)
    kernels = [stage[0].large_kernel for stage in model.stages]
    assert [k.kernel_size for k in kernels] == [size, size - 2, size - 4, 13]
    assert {k.small_conv.conv.kernel_size for k in kernels} == {(5, 5)}
    assert [stage[0].large_kernel.channels for stage in model.stages] == [124, 249, 499, 998]


@pytest.mark.parametrize('kind', ['7x7', 'gf'])
def test_fine_tuning_of_hornet(kind):
    cfg = load(f'hornet-large-{kind}_32xb16_in1k-384px')
    assert cfg.model.backbone.arch == dict([('7x7', 'large-7x7'), ('gf', 'large-gf-img384')])[kind]
    assert cfg.model.backbone.drop_path_rate == 0.4 and cfg.model.backbone.gap_before_final_norm
    assert cfg.model.init_cfg.checkpoint == f'checkpoints/hornet_large_{kind}_in22k.pth'
    assert cfg.model.train_cfg is None and cfg.model.head.loss.label_smooth_val == 0.1  # no Mixup, no CutMix
    optimizer = without_scope(cfg.optim_wrapper.optimizer)
    assert optimizer == dict(type='AdamW', lr=5e-5, weight_decay=1e-8, eps=1e-8, betas=(0.9, 0.999))
    assert cfg.optim_wrapper.constructor == CONSTRUCTOR and cfg.optim_wrapper.clip_grad.max_norm == 1
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.7, decay_type='layer_wise', num_layers=12)
    cosine = cfg.param_scheduler  # no warm-up
    assert (cosine.type, cosine.eta_min, cosine.get('begin', 0)) == ('CosineAnnealingLR', 1e-6, 0)
    assert cfg.train_cfg.max_epochs == 30 and cfg.train_dataloader.batch_size == 16
    assert cfg.auto_scale_lr.base_batch_size == 32 * 16
    assert hooks_of_its_own(cfg) == [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
    train, test = (loader.dataset.pipeline for loader in (cfg.train_dataloader, cfg.test_dataloader))
    assert [step.type for step in train[1:5]] == ['RandomResizedCrop', 'RandomFlip', 'RandAugment', 'RandomErasing']
    assert train[1].scale == 384 and train[3].magnitude_level == 9
    assert [step.get('scale') for step in test] == [None, (384, 384), None]  # warped, not cropped
    assert cfg.val_dataloader == cfg.test_dataloader


@pytest.mark.parametrize('network, image', [('transcnn', '-256px'), ('hat-net', '')])
@pytest.mark.parametrize('size, drop_path, clip', [('tiny', 0.1, None), ('small', 0.1, None), ('medium', 0.3, 1),
                                                   ('large', 0.3, 1)])
def test_imagenet_with_the_recipe_of_pvt(network, image, size, drop_path, clip):
    cfg = load(f'{network}-{size}_8xb128_in1k{image}')
    assert cfg.model.backbone.arch == size and cfg.model.backbone.drop_path_rate == drop_path
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == clip
    assert (cfg.model.head.type, cfg.model.head.get('dropout', 0.2)) == ('plugconv_mm.DropoutLinearClsHead', 0.2)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    optimizer = without_scope(cfg.optim_wrapper.optimizer)
    assert optimizer == dict(type='AdamW', lr=1e-3, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999))
    assert cfg.train_cfg.max_epochs == 300 and cfg.train_dataloader.batch_size == 128
    assert cfg.auto_scale_lr.base_batch_size == 1024
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ('LinearLR', 1e-3, 5)
    assert (cosine.type, cosine.eta_min, cosine.begin, cosine.end) == ('CosineAnnealingLR', 1e-5, 5, 300)
    assert cfg.train_dataloader.sampler.type == 'RepeatAugSampler'
    assert [augment.type for augment in cfg.model.train_cfg.augments] == ['Mixup', 'CutMix']
    assert not hooks_of_its_own(cfg)  # the published training has no average of weights
    side = 256 if image else 224
    pipelines = [loader.dataset.pipeline for loader in (cfg.train_dataloader, cfg.test_dataloader)]
    assert [step.get('scale', step.get('crop_size')) for step in pipelines[0] if 'Crop' in step.type] == [side]
    assert [step.crop_size for step in pipelines[1] if step.type == 'CenterCrop'] == [side]


@pytest.mark.parametrize('budget, ratio', [('kw1d2x', 0.5), ('kw1x', 1), ('kw4x', 4)])
@pytest.mark.parametrize('network', ['resnet50_32xb128', 'mobilenetv2_8xb32', 'mobilenetv2-050_8xb32'])
def test_kernel_warehouse_from_scratch(network, budget, ratio):
    cfg = load(f'kernel_warehouse/{budget}-{network}_in1k')
    assert cfg.model.backbone.get('cell_num_ratio', 1) == ratio and not cfg.model.backbone.norm_eval
    assert cfg.model.backbone.get('widen_factor', 1) == (0.5 if '050' in network else 1)
    assert cfg.train_cfg.max_epochs == (300 if 'resnet' in network else 150)
    assert len(hooks_of_its_own(cfg)) == 1
    smoothed = 'resnet' in network or (budget, network) in (
        ('kw1x', 'mobilenetv2_8xb32'), ('kw4x', 'mobilenetv2_8xb32'), ('kw4x', 'mobilenetv2-050_8xb32'))
    assert cfg.model.head.loss.type == ('LabelSmoothLoss' if smoothed else 'CrossEntropyLoss')
    # Only the published MobileNetV2s of half the budget mix their classifier; none is trained with dropout.
    dynamic = budget == 'kw1d2x' and 'mobilenetv2' in network
    assert cfg.model.head.type == ('plugconv_mm.KWLinearClsHead' if dynamic else 'LinearClsHead')
    assert cfg.model.head.get('dropout', 0) == 0


@pytest.mark.parametrize('path', sorted(ROOT.glob('*/*_in1k*.py')), ids=lambda path: path.stem)
def test_classifiers_are_evaluated_on_images_as_the_published_code_makes_them(path):
    """Mean, deviation and order of the channels, and how images are made smaller."""
    cfg = load_file(path)
    resize, = (step for step in cfg.test_dataloader.dataset.pipeline if 'Resize' in step.type)
    if path.stem.startswith('parcnet'):  # read and resized by OpenCV, and divided by 255
        assert not any(cfg.data_preprocessor.mean) and set(cfg.data_preprocessor.std) == {255}
        assert not cfg.data_preprocessor.to_rgb and resize.get('backend', 'cv2') == 'cv2'
        assert (resize.scale, resize.get('interpolation', 'bilinear')) == (288, 'bilinear')
        return
    assert list(cfg.data_preprocessor.mean) == [123.675, 116.28, 103.53] and cfg.data_preprocessor.to_rgb
    assert list(cfg.data_preprocessor.std) == [58.395, 57.12, 57.375]
    assert resize.backend == 'pillow'
    traditional = path.parent.name == 'kernel_warehouse' and 'mobilenetv2' in path.stem
    assert resize.interpolation == ('bilinear' if traditional else 'bicubic')


SLAK = 'cascade-mask-rcnn_slak-tiny', 'faster-rcnn_slak-tiny', 'upernet_slak-'


def test_hooks_of_sparse_training_and_of_the_temperature():
    """They are where the papers have them, and nowhere else: not in baselines, and no temperature in fine-tuning."""
    for path in (path for path in all_configs() if path.parent.name in ('slak', 'kernel_warehouse')):
        name = path.stem
        hooks = [hook for hook in hooks_of_its_own(load_file(path)) if hook['type'].startswith('plugconv_mm.')]
        expected = []
        if name.startswith(SLAK):
            expected = [dict(type='plugconv_mm.DynamicSparsityHook', sparse_init='loaded', module='backbone')]
        elif name.startswith('slak-tiny'):  # of 120 epochs, too
            expected = [dict(type='plugconv_mm.DynamicSparsityHook')]  # of which the defaults are the paper's for T
        elif name.startswith('slak-'):
            expected = [dict(type='plugconv_mm.DynamicSparsityHook', prune_rate=0.3, update_frequency=100)]
        elif name.startswith('kw'):
            epochs = 15 if 'mobilenetv2' in name else 20
            expected = [dict(type='plugconv_mm.KernelWarehouseTemperatureHook', epochs=epochs)]
        assert hooks == expected, name
    hook = DynamicSparsityHook()
    assert (hook.sparsity, hook.sparse_init, hook.growth, hook.prune_rate, hook.update_frequency,
            hook.only_large_kernel) == (0.4, 'snip', 'random', 0.5, 2000, False)


D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)


@pytest.mark.parametrize('name, classes, batch', [('4xb2-80k_cityscapes-512x1024', 19, 2),
                                                  ('4xb4-80k_ade20k-512x512', 150, 4)])
def test_deeplabv3plus(name, classes, batch):
    """mmseg's, with another backbone."""
    cfg = load(f'deeplabv3plus_parc-resnet50-d8_{name}')
    assert {key: cfg.model.backbone[key] for key in D8} == D8 and cfg.model.pretrained is None
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert head.type == 'DepthwiseSeparableASPPHead' and (head.in_channels, head.c1_in_channels) == (2048, 256)
    assert head.num_classes == auxiliary.num_classes == classes and auxiliary.in_channels == 1024
    assert cfg.train_dataloader.batch_size == batch and cfg.train_cfg.max_iters == 80000
    assert without_scope(cfg.optim_wrapper.optimizer) == dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005)


def assert_of_parcnet(cfg, weight_decay, batch):
    """What both dense recipes of ParC-Net have: 4 GPUs, images, optimizer, averaged weights."""
    preprocessor = cfg.model.data_preprocessor
    assert (list(preprocessor.mean), list(preprocessor.std), preprocessor.bgr_to_rgb) == ([0] * 3, [255] * 3, False)
    assert without_scope(cfg.optim_wrapper.optimizer) == dict(type='AdamW', lr=9e-4, weight_decay=weight_decay)
    assert cfg.train_dataloader.batch_size == batch and cfg.auto_scale_lr.base_batch_size == 4 * batch
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end, warm_up.by_epoch) == ('LinearLR', 0.1, 500, False)
    assert (cosine.type, cosine.eta_min) == ('CosineAnnealingLR', 1e-6)
    assert hooks_of_its_own(cfg)[-1] == dict(type='EMAHook', momentum=5e-4, priority='ABOVE_NORMAL')


def test_deeplabv3_of_parcnet():
    cfg = load('deeplabv3_parcnet-s_4xb8-20k_voc12aug-512x512')
    assert_of_parcnet(cfg, 0.01, 8)
    assert cfg.model.backbone.strides == (2, 2, 2, 1) and 'dilations' not in cfg.model.backbone
    head = cfg.model.decode_head
    assert (head.channels, head.dilations, head.num_classes) == (256, (1, 6, 12, 18), 21) and not head.align_corners
    assert head.dropout_ratio == head.pyramid_dropout_ratio == 0.1
    assert cfg.optim_wrapper.paramwise_cfg == dict(custom_keys=dict(decode_head=dict(lr_mult=10.)))
    train, augmented = cfg.train_dataloader.dataset.datasets
    assert train.pipeline == augmented.pipeline and augmented.ann_file.endswith('aug.txt')
    assert [step.scale for step in train.pipeline if step.type == 'RandomResize'] == [[(2048, 384), (2048, 768)]]
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_iters == 20000


def test_ssdlite_of_parcnet():
    cfg = load('ssdlite_parcnet-s_4xb32-200e_coco-320px')
    assert_of_parcnet(cfg, 0.02, 32)
    assert cfg.param_scheduler[1].T_max == cfg.train_cfg.max_epochs == 200 and cfg.train_dataloader.dataset.times == 1
    assert cfg.model.neck.out_channels[:2] == (128, 160) and cfg.model.bbox_head.in_channels == (
        cfg.model.neck.out_channels)
    anchors = cfg.model.bbox_head.anchor_generator
    assert [len(ratios) for ratios in anchors.ratios] == [2] * 5 + [1]
    assert anchors.min_sizes[0] == 32 and anchors.max_sizes[-1] == pytest.approx(336)
    assert anchors.min_sizes[1:] == anchors.max_sizes[:-1]
    assert list(cfg.model.bbox_head.bbox_coder.target_stds) == [0.1, 0.1, 0.2, 0.2]
    for loader in (cfg.train_dataloader.dataset, cfg.test_dataloader):
        assert [step.scale for step in loader.dataset.pipeline if step.type == 'Resize'] == [(320, 320)]


def test_transformers_on_hornet():
    cfg = load('mask2former_hornet-tiny-gf_8xb2-160k_ade20k-512x512')
    optimizer = without_scope(cfg.optim_wrapper.optimizer)
    assert optimizer == dict(type='AdamW', lr=1e-4, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999))
    assert cfg.optim_wrapper.constructor == CONSTRUCTOR
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6)
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.01 and cfg.train_cfg.max_iters == 160000
    assert cfg.model.backbone.arch == 'tiny-gf-img384' and 'mmdet.models' in cfg.custom_imports.imports
    cfg = load('dino-4scale_hornet-tiny-gf_8xb2-12e_coco')
    assert without_scope(cfg.optim_wrapper.optimizer) == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    assert cfg.optim_wrapper.constructor == CONSTRUCTOR
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.7, decay_type='layer_wise', num_layers=12)
    assert cfg.train_cfg.max_epochs == 12 and cfg.model.neck.in_channels == [128, 256, 512]
    assert cfg.model.backbone.out_indices == (1, 2, 3)


# Of all configs


def all_configs():
    return sorted(path for path in ROOT.rglob('*.py') if '_base_' not in path.parts)


@pytest.mark.parametrize('path', all_configs(), ids=lambda path: path.stem)
def test_names_and_lengths(path):
    data = (r'(coco(-320px)?|voc0712|(ade20k|cityscapes|voc12aug)-\d+x\d+|in1k(-(256|384)px)?|in21k|digits|'
            'distant-cue)')
    assert re.fullmatch(rf'[a-z0-9-]+(_[a-z0-9-]+)*_{data}', path.stem)
    text = path.read_text()
    if re.search(r"_base_ = '\./", text):  # a variant: what differs
        assert len(text.splitlines()) <= 20


@pytest.mark.parametrize('path', all_configs(), ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_what_every_config_has(path):
    """The hooks that stop at NaN and average buffers, once each, and the import without which they are unknown."""
    cfg = load_file(path)
    assert [sum(hook == expected for hook in cfg.custom_hooks) for expected in EVERYWHERE] == [1, 1]
    assert 'plugconv_mm' in cfg.custom_imports.imports


def without_scope(node):
    """Without the mark that mmengine leaves in what comes from another package's config."""
    return {key: value for key, value in node.items() if key != '_scope_'}


def assert_adamw(cfg, lr, decay_type, decay):
    optimizer = without_scope(cfg.optim_wrapper.optimizer)
    assert optimizer == dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05)
    if decay:
        assert cfg.optim_wrapper.constructor == CONSTRUCTOR
        assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=decay[0], decay_type=decay_type, num_layers=decay[1])
    else:
        assert 'constructor' not in cfg.optim_wrapper
        assert all(cfg.optim_wrapper.paramwise_cfg[f'{kind}_decay_mult'] == 0 for kind in ('norm', 'bias', 'flat'))


def assert_coco(cfg, epochs, steps):
    assert_schedule(cfg, epochs, steps)
    choice, = (step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomChoice')
    (resize, ), (smaller, crop, again) = choice.transforms
    assert resize == again and [scale[0] for scale in resize.scales] == list(range(480, 801, 32))
    assert [scale[0] for scale in smaller.scales] == [400, 500, 600] and tuple(crop.crop_size) == (384, 600)
    assert [step.scale for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize'] == [(1333, 800)]
    assert cfg.custom_imports.imports[0] == 'plugconv_mm'


def assert_schedule(cfg, epochs, steps):
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, multi_step = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end, warm_up.by_epoch) == ('LinearLR', 0.001, 500, False)
    assert (multi_step.milestones, multi_step.gamma, multi_step.end) == (steps, 0.1, epochs)


def assert_upernet(cfg, crop, decay):
    assert_adamw(cfg, 1e-4, 'stage_wise', decay)
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_iters == 160000
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ('LinearLR', 1e-6, 1500)
    assert (poly.type, poly.power, poly.eta_min, poly.begin, poly.end) == ('PolyLR', 1.0, 0, 1500, 160000)
    stride = {512: 341, 640: 426}[crop]
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(crop, crop), stride=(stride, stride))
    assert cfg.model.data_preprocessor.size == (crop, crop)
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert head.channels == 512 and head.num_classes == auxiliary.num_classes == 150
    assert (auxiliary.type, auxiliary.channels, auxiliary.in_index) == ('FCNHead', 256, 2)
    assert auxiliary.loss_decode.loss_weight == 0.4 and auxiliary.in_channels == head.in_channels[2]
    scales = cfg.tta_pipeline[1].transforms[0]
    assert [resize.scale[1] / crop for resize in scales] == [0.5, 0.75, 1, 1.25, 1.5, 1.75]
