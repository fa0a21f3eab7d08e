"""ParC-ResNet: a ResNet whose last blocks convolve globally.

- Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

In a ParC bottleneck dense ParC-H on one half of the width and dense ParC-W on the other stand in for the 3×3
convolution; everything around them is a ResNet as torchvision and mmdet have it, and so are the parameters' names.
"""
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import check_strides_and_dilations
from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.resnet_base import ResNetBackbone, ResNetBlock
from plugconv_mm.ops import ParCHW2d
from plugconv_mm.ops.residual_block import drop_path_rates
from plugconv_mm.registry import MODELS


class ParCBottleneck(ResNetBlock):
    """A residual block of 1×1, 3×3 or ParC, and 1×1.

    Args:
        in_channels: Channels of the input.
        width: Channels of the inner convolution; the output has four times as many.
        stride: Stride of the 3×3 convolution and of the shortcut.
        dilation: Dilation of the 3×3 convolution.
        meta_size: Length of the ParC kernels, or None for a 3×3 convolution.
        norm_cfg: Config of the normalisation layers.
        drop_path: Probability of dropping the residual branch.
        with_cp: Whether to recompute activations in the backward pass.
        parc_backend: Backend of the ParC.
    """

    expansion, num_convs = 4, 3

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, meta_size: int | None, norm_cfg: dict,
                 drop_path: float, with_cp: bool, parc_backend: str) -> None:
        super().__init__(drop_path, with_cp)
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = build_norm_layer(norm_cfg, width)[1]
        if meta_size is None:
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        else:
            self.conv2 = ParCHW2d(width, meta_size, depthwise=False, backend=parc_backend)
        self.bn2 = build_norm_layer(norm_cfg, width)[1]
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = build_norm_layer(norm_cfg, out_channels)[1]
        if stride != 1 or in_channels != out_channels:
            self.downsample = ConvNormAct(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1])


@MODELS.register_module()
class ParCResNet(ResNetBackbone):
    """ResNet with ParC in the last blocks of its stages; arguments as mmdet's and mmseg's ResNet.

    Args:
        depth: 50, 101 or 152.
        in_channels: Channels of the image.
        base_channels: Channels of the stem; the stages have 4, 8, 16 and 32 times as many.
        parc_blocks: How many of the last blocks of each stage are ParC. The first block of a stage changes width and
            resolution and keeps its 3×3 convolution.
        parc_backend: Backend of every ParC; see :func:`plugconv_mm.ops.parc_conv2d`.
        strides: Stride of the first block of each stage, 1 or 2.
        dilations: Dilation of the 3×3 convolutions of each stage. A ParC has a global kernel, which is stretched to
            the larger map and is not dilated.
        contract_dilation: Whether the first block of a dilated stage has half of the dilation.
        out_indices: Stages whose outputs are returned, at strides 4, 8, 16 and 32 by default; 4, 8, 8 and 8 in the D8
            of PSPNet and DeepLab, with strides of (1, 2, 1, 1), dilations of (1, 1, 2, 4) and `contract_dilation`.
        frozen_stages: Stages without training: -1 none, 0 the stem, i the stem and the first i stages.
        norm_cfg: Config of the normalisation layers.
        norm_eval: Whether BatchNorm keeps its running statistics while training.
        drop_path_rate: Stochastic depth of the last block; grows linearly from zero.
        with_cp: Whether to recompute activations in the backward pass, for memory.
        zero_init_residual: Whether each block's last normalisation starts at zero.
        init_cfg: Initialisation, for example ``dict(type='Pretrained', checkpoint=...)``.

    Raises:
        ValueError: An unknown depth; `parc_blocks` of a wrong length or beyond a stage's blocks; strides or dilations
            that no stage can have; indices that do not exist.

    Example:
        >>> import torch
        >>> backbone = ParCResNet(50, base_channels=8)
        >>> [tuple(y.shape) for y in backbone(torch.randn(1, 3, 64, 96))]
        [(1, 32, 16, 24), (1, 64, 8, 12), (1, 128, 4, 6), (1, 256, 2, 3)]
    """
    depths = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
    meta_sizes = (56, 28, 14, 7)  # the sides of the stages' maps of an image of 224 pixels

    def __init__(self, depth: int = 50, in_channels: int = 3, base_channels: int = 64,
                 parc_blocks: Sequence[int] = (0, 0, 3, 1), parc_backend: str = 'auto',
                 strides: Sequence[int] = (1, 2, 2, 2), dilations: Sequence[int] = (1, 1, 1, 1),
                 contract_dilation: bool = False,
                 out_indices: Sequence[int] = (0, 1, 2, 3), frozen_stages: int = -1,
                 norm_cfg: dict | None = None, norm_eval: bool = False, drop_path_rate: float = 0.,
                 with_cp: bool = False, zero_init_residual: bool = True,
                 init_cfg: dict | list[dict] | None = None) -> None:
        if depth not in self.depths:
            raise ValueError(f'depth must be one of {tuple(self.depths)}, got {depth}')
        blocks = self.depths[depth]
        parc_blocks = tuple(parc_blocks)
        if len(parc_blocks) != 4 or any(not 0 <= p < b for p, b in zip(parc_blocks, blocks, strict=True)):
            raise ValueError(
                f'parc_blocks gives the number of ParC blocks of each of the 4 stages; depth {depth} has {blocks} '
                'blocks, the first of each keeps its 3x3 convolution, so at most '
                f'{tuple(b - 1 for b in blocks)} can be ParC; got {parc_blocks}')
        check_strides_and_dilations(4, strides, dilations)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        self.zero_init_residual = zero_init_residual
        self._add_stem(in_channels, base_channels, norm_cfg)
        rates = iter(drop_path_rates(drop_path_rate, sum(blocks)))
        channels = base_channels
        for stage, (count, parc) in enumerate(zip(blocks, parc_blocks, strict=True)):
            width = base_channels * 2**stage
            layer = nn.Sequential()
            for i in range(count):
                stride, dilation = self._stride_and_dilation(i, strides[stage], dilations[stage], contract_dilation)
                layer.append(ParCBottleneck(
                    channels, width, stride, dilation,
                    meta_size=self.meta_sizes[stage] if i >= count - parc else None, norm_cfg=norm_cfg,
                    drop_path=next(rates), with_cp=with_cp, parc_backend=parc_backend))
                channels = width * ParCBottleneck.expansion
            self.add_module(f'layer{stage + 1}', layer)
        self._freeze_stages()

    @classmethod
    def sizes(cls) -> list[dict[str, Any]]:
        return [dict(depth=depth) for depth in cls.depths]

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; from scratch, blocks may start as the identity."""
        super().init_weights()
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        if self.zero_init_residual and not any(cfg['type'] == 'Pretrained' for cfg in cfgs):
            for m in self.modules():
                if isinstance(m, ParCBottleneck) and isinstance(m.bn3.weight, Tensor):  # a norm need not have weights
                    nn.init.zeros_(m.bn3.weight)
