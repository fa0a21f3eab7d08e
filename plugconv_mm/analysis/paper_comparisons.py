"""The comparisons of the papers, each with the baselines that mmpretrain and mmdet implement."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Models that a paper compares.

    Attributes:
        about: A title.
        shape: Height and width of the images.
        configs: Configs by the name of the model; the first is the baseline.
    """
    about: str
    shape: tuple[int, int]
    configs: dict[str, str]


PUBLISHED = {
    'parcnet': Comparison('ParC-Net against MobileViT', (256, 256), {
        'MobileViT-S': 'mmpretrain::mobilevit/mobilevit-small_8xb128_in1k.py',
        'ParC-Net-S': 'plugconv_mm::parc/parcnet-s_8xb128_in1k-256px.py',
    }),
    'parc-resnet': Comparison('ParC-ResNet-50 against ResNet-50', (224, 224), {
        'ResNet-50': 'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        'ParC-ResNet-50': 'plugconv_mm::parc/parc-resnet50_8xb128_in1k.py',
    }),
    'parc-convnext': Comparison('ParC-ConvNeXt-XT against ConvNeXt-XT', (224, 224), {
        'ConvNeXt-XT': 'plugconv_mm::parc/convnext-xt_8xb128_in1k.py',
        'ParC-ConvNeXt-XT': 'plugconv_mm::parc/parc-convnext-xt_8xb128_in1k.py',
    }),
    'parc-mobilenetv2': Comparison('ParC-MobileNetV2 against MobileNetV2', (224, 224), {
        'MobileNetV2': 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
        'ParC-MobileNetV2': 'plugconv_mm::parc/parc-mobilenetv2_8xb128_in1k.py',
    }),
    'kw-resnet18': Comparison('KernelWarehouse against plain convolution, ResNet-18', (224, 224), {
        'ResNet-18': 'mmpretrain::resnet/resnet18_8xb32_in1k.py',
        'KW-ResNet-18 1/4x': 'plugconv_mm::kernel_warehouse/kw1d4x-resnet18_32xb128_in1k.py',
        'KW-ResNet-18 1/2x': 'plugconv_mm::kernel_warehouse/kw1d2x-resnet18_32xb128_in1k.py',
        'KW-ResNet-18 1x': 'plugconv_mm::kernel_warehouse/kw1x-resnet18_32xb128_in1k.py',
        'KW-ResNet-18 2x': 'plugconv_mm::kernel_warehouse/kw2x-resnet18_32xb128_in1k.py',
        'KW-ResNet-18 4x': 'plugconv_mm::kernel_warehouse/kw4x-resnet18_32xb128_in1k.py',
    }),
    'kw-resnet50': Comparison('KernelWarehouse against plain convolution, ResNet-50', (224, 224), {
        'ResNet-50': 'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        'KW-ResNet-50 1/2x': 'plugconv_mm::kernel_warehouse/kw1d2x-resnet50_32xb128_in1k.py',
        'KW-ResNet-50 1x': 'plugconv_mm::kernel_warehouse/kw1x-resnet50_32xb128_in1k.py',
        'KW-ResNet-50 4x': 'plugconv_mm::kernel_warehouse/kw4x-resnet50_32xb128_in1k.py',
    }),
    'kw-mobilenetv2': Comparison('KernelWarehouse against plain convolution, MobileNetV2', (224, 224), {
        'MobileNetV2': 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
        'KW-MobileNetV2 1/2x': 'plugconv_mm::kernel_warehouse/kw1d2x-mobilenetv2_8xb32_in1k.py',
        'KW-MobileNetV2 1x': 'plugconv_mm::kernel_warehouse/kw1x-mobilenetv2_8xb32_in1k.py',
        'KW-MobileNetV2 4x': 'plugconv_mm::kernel_warehouse/kw4x-mobilenetv2_8xb32_in1k.py',
    }),
    'kw-convnext': Comparison('KernelWarehouse against plain convolution, ConvNeXt-T', (224, 224), {
        'ConvNeXt-T': 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
        'KW-ConvNeXt-T 1x': 'plugconv_mm::kernel_warehouse/kw1x-convnext-tiny_32xb128_in1k.py',
    }),
    'horfpn': Comparison('HorFPN against FPN, Mask R-CNN with ResNet-50', (800, 1280), {
        'FPN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'HorFPN 7x7': 'plugconv_mm::horfpn/mask-rcnn_r50_horfpn-7x7_ms-480-800-1x_coco.py',
        'HorFPN GF': 'plugconv_mm::horfpn/mask-rcnn_r50_horfpn-gf_ms-480-800-1x_coco.py',
    }),
    'slak': Comparison('SLaK against ConvNeXt and RepLKNet', (224, 224), {
        'ConvNeXt-T': 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
        'SLaK-T': 'plugconv_mm::slak/slak-tiny_32xb128_in1k.py',
        'ConvNeXt-B': 'mmpretrain::convnext/convnext-base_32xb128_in1k.py',
        'RepLKNet-31B': 'mmpretrain::replknet/replknet-31B_32xb64_in1k.py',
        'SLaK-B': 'plugconv_mm::slak/slak-base_32xb128_in1k.py',
    }),
}
