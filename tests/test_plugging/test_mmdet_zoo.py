"""Operators plugged into the detectors of mmdet's model zoo, a config of each kind, at their full width."""
import copy

import plugging_sweep
import pytest

pytest.importorskip('mmdet')

from mmdet.testing import demo_mm_inputs  # noqa: E402
from mmengine.logging import MessageHub  # noqa: E402
from mmengine.model import revert_sync_batchnorm  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

from plugconv_mm.runtime.build import build_part  # noqa: E402
from plugconv_mm.runtime.read_config import find_config, read_config  # noqa: E402
from plugconv_mm.runtime.shrink_config import cap_numbers, leave_out_weights  # noqa: E402

QUICK = ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'yolox/yolox_tiny_8xb8-300e_coco']
CONFIGS = {  # `model` is changed in its config, `size` is that of the images, `check` are arguments of it
    'atss/atss_r50_fpn_1x_coco': {},
    'autoassign/autoassign_r50-caffe_fpn_1x_coco': {},
    'boxinst/boxinst_r50_fpn_ms-90k_coco': {},
    'carafe/faster-rcnn_r50_fpn-carafe_1x_coco': {},
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco': {},
    'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco': {},
    'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco': {},
    'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco': {},
    'centripetalnet/centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco': {},
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance': {},
    'conditional_detr/conditional-detr_r50_8xb2-50e_coco': {},
    'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco': {},
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco': {},
    'crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman': {},
    'dab_detr/dab-detr_r50_8xb2-50e_coco': {},
    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco': {},
    'dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco': {},
    'ddod/ddod_r50_fpn_1x_coco': {},
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco': {},
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': {},
    'detectors/detectors_cascade-rcnn_r50_1x_coco': dict(size=(96, 128), check=dict(statistics=True)),
    'detr/detr_r50_8xb2-150e_coco': {},
    'dino/dino-4scale_r50_8xb2-12e_coco': {},
    'double_heads/dh-faster-rcnn_r50_fpn_1x_coco': {},
    'dyhead/atss_r50_fpn_dyhead_1x_coco': {},
    'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco': {},
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco': {},
    'empirical_attention/faster-rcnn_r50-attn0010_fpn_1x_coco': {},
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': {},
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': {},
    'foveabox/fovea_r50_fpn_4xb4-1x_coco': {},
    'fpg/retinanet_r50_fpg-chn128_crop640_50e_coco': {},
    'free_anchor/freeanchor_r50_fpn_1x_coco': {},
    'fsaf/fsaf_r50_fpn_1x_coco': {},
    'gcnet/mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco': {},
    'gfl/gfl_r50_fpn_1x_coco': {},
    'ghm/retinanet_r50_fpn_ghm-1x_coco': {},
    'gn/mask-rcnn_r50_fpn_gn-all_2x_coco': {},
    'gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco': {},
    'grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco': {},
    'groie/faste-rcnn_r50_fpn_groie_1x_coco': {},
    # Its convolutions on parts of a map take one image at a time.
    'guided_anchoring/ga-retinanet_r50_fpn_1x_coco': dict(images=1),
    # Its maps of random weights reach 1e7, of which 63 gnConvs in a row overflow.
    'hrnet/faster-rcnn_hrnetv2p-w18-2x_coco': dict(check=dict(gamma=0.)),
    'htc/htc_r50_fpn_1x_coco': {},
    'lad/lad_r50-paa-r101_fpn_2xb8_coco_1x': dict(model=dict(teacher_ckpt=None)),
    'ld/ld_r18-gflv1-r101_fpn_1x_coco': dict(model=dict(teacher_ckpt=None, teacher_config=str(find_config(
        'mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py')))),
    'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco': {},
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco': {},
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco': {},
    'maskformer/maskformer_r50_ms-16xb1-75e_coco': {},
    'ms_rcnn/ms-rcnn_r50_fpn_1x_coco': {},
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco': dict(
        model=dict(backbone=dict(norm_cfg=dict(eps=1e-5)))),
    'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco': {},
    'paa/paa_r50_fpn_1x_coco': {},
    'pafpn/faster-rcnn_r50_pafpn_1x_coco': {},
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco': {},
    'pisa/faster-rcnn_r50_fpn_pisa_1x_coco': {},
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco': {},
    'pvt/retinanet_pvt-t_fpn_1x_coco': {},
    'pvt/retinanet_pvtv2-b0_fpn_1x_coco': {},
    'queryinst/queryinst_r50_fpn_1x_coco': dict(model=dict(test_cfg=dict(rcnn=dict(max_per_img=100)))),
    'regnet/retinanet_regnetx-800MF_fpn_1x_coco': {},
    'reppoints/reppoints-moment_r50_fpn_1x_coco': {},
    'res2net/faster-rcnn_res2net-101_fpn_2x_coco': {},
    'resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco': {},
    'retinanet/retinanet_r50_fpn_1x_coco': {},
    'rpn/rpn_r50_fpn_1x_coco': {},
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': dict(masks=False),
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco': {},
    'sabl/sabl-retinanet_r50_fpn_1x_coco': {},
    'scnet/scnet_r50_fpn_1x_coco': {},
    'seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1': {},
    'solo/solo_r50_fpn_1x_coco': {},
    'solov2/solov2-light_r18_fpn_ms-3x_coco': {},
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco': {},
    'ssd/ssd300_coco': dict(size=(300, 300)),
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco': dict(size=(320, 320)),
    'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco': {},
    'tood/tood_r50_fpn_1x_coco': {},
    'tridentnet/tridentnet_r50-caffe_1x_coco': {},
    'vfnet/vfnet_r50_fpn_1x_coco': {},
    'yolact/yolact_r50_1xb8-55e_coco': {},
    'yolo/yolov3_d53_8xb8-320-273e_coco': {},
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco': {},
    'yolof/yolof_r50-c5_8xb8-1x_coco': {},
    'yolox/yolox_tiny_8xb8-300e_coco': {},
}


@pytest.mark.parametrize('config', [
    pytest.param(config, marks=[] if config in QUICK else pytest.mark.slow) for config in CONFIGS])
def test_a_detector_starts_as_it_was(config, record_property):
    options = CONFIGS[config]
    height, width = options.get('size', (64, 96))
    cfg = read_config(f'mmdet::{config}.py')
    leave_out_weights(cfg)
    cap_numbers(cfg.model)
    cfg.merge_from_dict(dict(model=dict(options.get('model', {}), data_preprocessor=dict(batch_augments=None))))
    model = revert_sync_batchnorm(build_part(cfg, cfg.model))
    init_default_scope('mmdet')
    for key in ('iter', 'epoch'):  # heads ask a Runner's for them
        MessageHub.get_current_instance().update_info(key, 0)
    record_property('class', type(model).__name__)
    inputs = demo_mm_inputs(2, [[3, height, width]] * 2, [3, 2], with_mask=options.get('masks', True),
                            with_semantic=True)

    def call(network, mode, number=2):
        data = network.data_preprocessor({key: copy.deepcopy(parts[:number]) for key, parts in inputs.items()},
                                         mode == 'loss')
        return network(**data, mode=mode)

    def loss(network):
        return network.parse_losses(call(network, 'loss'))[0]

    plugging_sweep.check(model, lambda network: call(network, 'tensor', options.get('images', 2)), loss,
                         (height, width), record_property, **options.get('check', {}))
