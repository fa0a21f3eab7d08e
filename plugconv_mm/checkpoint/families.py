"""Published code bases whose checkpoints are known: how their names are told apart, and which are ours."""
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One published code base: how its checkpoints are recognised and renamed.

    Everything is matched against keys without prefixes, such as those of a backbone or a neck alone.

    Attributes:
        name: Name for messages.
        signature: Regular expression found in at least one key of every checkpoint of this family, be it in the
            published naming or in ours, and in no checkpoint of a family before it.
        known: Regular expression that each of our keys matches in full. Whatever does not match it after renaming,
            and is not dropped, is an unknown key.
        renames: (pattern, replacement) pairs, each applied to every key with ``re.sub``, in this order. Our own keys
            must pass unchanged.
        dropped: Regular expression of the published keys that have no place in ours, matched in full: classifiers.
        shapes: (pattern, sizes) pairs: a tensor under one of our keys in which the pattern is found must have these
            sizes, None standing for any.
        is_shared: Whether models outside this package have the published names, too. Only a model that has ours tells
            that such a checkpoint is to be renamed; a loader that does not see the model leaves it as it is.
    """
    name: str
    signature: str
    known: str
    renames: tuple[tuple[str, str], ...] = ()
    dropped: str = r'(fc|head|classifier)\..*'
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...] = ()
    is_shared: bool = False

    def rename(self, key: str) -> str:
        """Our name of a published key; a name of ours stays."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


_NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_NORM_AND_HEAD = r'(norm|fc|head|classifier)\..*'  # the norm between pooling and the classifier
_KW_ATTENTION = rf'(fc[123]\.(weight|bias)|norm1\.{_NORM}|basis_bias)'
# A large kernel: its branches, and what is left of them when it is deployed.
_LARGE = rf'(vertical|horizontal|large_conv|small_conv)\.(weight|bias|conv\.weight|bn\.{_NORM})'
# The published filters, then ours: ParC, large kernels as in training and deployed, KernelWarehouse.
_FILTER = (r'(weight|bias|complex_weight|dw\.weight|(pre|post)_norm\.(weight|bias)'
           r'|position_embedding|parc_[hw]\.(weight|bias|position_embedding)'
           rf'|{_LARGE}|attention\.{_KW_ATTENTION}|own_warehouse\.weights\.\d+)')
_GNCONV = rf'(proj_in\.(weight|bias)|pws\.\d+\.(weight|bias)|proj_out\.(weight|bias)|dwconv\.{_FILTER})'
_GNCONV_SHAPES = ((r'\.complex_weight$', (None, None, None, 2)), (r'\.dwconv\.weight$', (None, 1, None, None)))
_HORNET = (r'downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)'
           rf'|stages\.[0-3]\.\d+\.(gamma[12]|(norm[12]|pwconv[12])\.(weight|bias)|gnconv\.{_GNCONV})')
_CONVNEXT = (r'downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)'
             rf'|stages\.[0-3]\.\d+\.(gamma|(dwconv|norm|pwconv[12])\.(weight|bias)|dwconv\.{_LARGE})')
_CONVNEXT_SHAPES = ((r'\.dwconv\.weight$', (None, 1, 7, 7)), (r'\.pwconv[12]\.weight$', (None, None)))

# ParC as the code base of Fast-ParC names it, once its direction is renamed.
_GCC = ((r'(\.parc_[hw])\.pe$', r'\1.position_embedding'), (r'(\.parc_[hw])\.gcc_conv\.', r'\1.'))
_PARC_SHAPES = ((r'\.parc_h\.(weight|position_embedding)$', (None, None, None, 1)),
                (r'\.parc_w\.(weight|position_embedding)$', (None, None, 1, None)))
CELLS = r'warehouse_manager\.weights\.\d+'
_KW_SHAPES = ((CELLS, (None, None, None, 1, 1)), )

FAMILIES = (
    Family(
        'ParC-ResNet',
        signature=r'^layer\d+\.\d+\.(parc_[HW]\.|conv2\.parc_[hw]\.)',
        known=(rf'(conv1|[bg]n1|stem\.\d+)\.{_NORM}'
               rf'|layer[1-4]\.\d+\.(conv[123]|[bg]n[123]|downsample\.\d+)\.{_NORM}'
               r'|layer[1-4]\.\d+\.conv2\.parc_[hw]\.(weight|bias|position_embedding)'),
        renames=((r'\.parc_H\.', '.conv2.parc_h.'), (r'\.parc_W\.', '.conv2.parc_w.'), *_GCC),
        shapes=_PARC_SHAPES,
    ),
    Family(
        'HorFPN',
        signature=r'^fpn_convs\.\d+\.(conv\.)?proj_in\.',
        known=rf'(lateral_convs|fpn_convs)\.\d+\.(conv\.((weight|bias)|{_GNCONV})|[bgi]n\.{_NORM})',
        renames=((r'^(fpn_convs\.\d+\.)(proj_in|dwconv|pws|proj_out)\.', r'\1conv.\2.'), ),
        dropped=r'(?!)',
        shapes=_GNCONV_SHAPES,
    ),
    Family(
        'HorNet of mmpretrain',
        signature=r'^stages\.\d+\.\d+\.(gnconv\.projs\.|gamma[12]\.weight$)',
        known=_HORNET,
        renames=((r'\.gnconv\.projs\.', '.gnconv.pws.'), (r'(\.gamma[12])\.weight$', r'\1')),
        dropped=_NORM_AND_HEAD,
        shapes=_GNCONV_SHAPES,
        is_shared=True,
    ),
    Family(
        'HorNet',
        signature=r'^stages\.\d+\.\d+\.gnconv\.',
        known=_HORNET,
        dropped=_NORM_AND_HEAD,
        shapes=_GNCONV_SHAPES,
    ),
    Family(
        'ParC-ConvNeXt',
        signature=r'^stages\.\d+\.\d+\.(gcc_[HW]\.|dwconv\.(parc_[hw]|vertical|large_conv)\.)',
        known=_CONVNEXT + r'|stages\.[0-3]\.\d+\.dwconv\.parc_[hw]\.(weight|bias|position_embedding)',
        renames=((r'\.gcc_H\.', '.dwconv.parc_h.'), (r'\.gcc_W\.', '.dwconv.parc_w.'), *_GCC),
        dropped=_NORM_AND_HEAD,
        shapes=_PARC_SHAPES,
    ),
    # ParCConvNeXt with parc_blocks=(0, 0, 0, 0) is a plain ConvNeXt, under the names that its authors gave.
    Family(
        'ConvNeXt of mmpretrain',
        signature=r'^stages\.\d+\.\d+\.(depthwise_conv|pointwise_conv1)\.',
        known=_CONVNEXT,
        renames=((r'\.depthwise_conv\.', '.dwconv.'), (r'\.pointwise_conv([12])\.', r'.pwconv\1.')),
        dropped=_NORM_AND_HEAD,
        shapes=_CONVNEXT_SHAPES,
        is_shared=True,
    ),
    Family(
        'ConvNeXt',
        signature=r'^stages\.3\.2\.dwconv\.weight$',  # the last block, which is a ParC one in ParC-ConvNeXt
        known=_CONVNEXT,
        dropped=_NORM_AND_HEAD,
        shapes=_CONVNEXT_SHAPES,
        is_shared=True,
    ),
    Family(
        'ParC-MobileNetV2',
        signature=r'^features\.\d+\.(gcc_[HW]\.|parc\.parc_[hw]\.)',
        known=(rf'features\.\d+\.(\d|conv\.\d(\.\d)?|(pw_expand|pw_linear)\.[01]|bn)\.{_NORM}'
               r'|features\.\d+\.parc\.parc_[hw]\.(weight|bias|position_embedding)'),
        renames=((r'\.gcc_H\.', '.parc.parc_h.'), (r'\.gcc_W\.', '.parc.parc_w.'), *_GCC),
        shapes=_PARC_SHAPES,
    ),
    Family(
        'ParC-Net',
        signature=r'^layer_\d\.\d\.spatial_global_rep\.\d+\.(meta_kernel_|branch_)',
        known=(rf'conv_1\.(conv|norm)\.{_NORM}|layer_\d\.\d\.(exp_1x1|conv_3x3|red_1x1)\.(conv|norm)\.{_NORM}'
               rf'|layer_\d\.1\.(dim_adaptive\.0|channel_adaptive|local_global_fusion)\.(conv|norm)\.{_NORM}'
               r'|layer_\d\.1\.dim_adaptive\.1\.weight'
               rf'|layer_\d\.1\.spatial_global_rep\.\d+\.((ffn\.[013]|ca\.fc\.[0134])\.{_NORM}|{_NORM}'
               rf'|branch_(hw|wh)\.(first\.(norm\.{_NORM}|pe\.position_embedding|parc\.weight)'
               r'|second\.(weight|position_embedding)))'),
        # The digit of a published name counts the steps, its letter tells the axis.
        renames=((r'\.block\.', '.'), (r'(\.dim_adaptive\.1)\.conv\.', r'\1.'), (r'\.ffn\.4\.', '.ffn.3.'),
                 (r'\.pre_Norm_1\.', '.branch_hw.first.norm.'), (r'\.pre_Norm_2\.', '.branch_wh.first.norm.'),
                 (r'\.meta_kernel_1_H$', '.branch_hw.first.parc.weight'),
                 (r'\.meta_kernel_1_W$', '.branch_wh.first.parc.weight'),
                 (r'\.meta_kernel_2_W$', '.branch_hw.second.weight'),
                 (r'\.meta_kernel_2_H$', '.branch_wh.second.weight'),
                 (r'\.meta_pe_1_H$', '.branch_hw.first.pe.position_embedding'),
                 (r'\.meta_pe_1_W$', '.branch_wh.first.pe.position_embedding'),
                 (r'\.meta_pe_2_W$', '.branch_hw.second.position_embedding'),
                 (r'\.meta_pe_2_H$', '.branch_wh.second.position_embedding')),
        # ``residual`` is a block that the published network holds and never calls.
        dropped=r'(residual|conv_1x1_exp|fc|head|classifier)\..*',
        shapes=((r'\.branch_(hw\.first|wh\.second)\.(parc\.weight|(pe\.)?position_embedding|weight)$',
                 (None, None, None, 1)),
                (r'\.branch_(wh\.first|hw\.second)\.(parc\.weight|(pe\.)?position_embedding|weight)$',
                 (None, None, 1, None))),
    ),
    Family(
        'SLaK',
        signature=r'^stages\.\d+\.\d+\.large_kernel\.',
        known=(r'downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)'
               rf'|stages\.[0-3]\.\d+\.(gamma|(norm|pwconv[12])\.(weight|bias)|large_kernel\.{_LARGE})'),
        # Older checkpoints say LoRA, newer ones Decom. Those trained without --Decom have whole kernels, merged ones
        # among them; they load into a SLaK with decomposed=False.
        renames=((r'\.(LoRA|Decom)1\.', '.vertical.'), (r'\.(LoRA|Decom)2\.', '.horizontal.'),
                 (r'\.lkb_(origin|reparam)\.', '.large_conv.')),
        dropped=_NORM_AND_HEAD,
    ),
    Family(
        'KW-ResNet',
        signature=r'^layer\d+\.\d+\.conv\d\.attention\.',
        known=(rf'warehouse_manager\.weights\.\d+|(conv1|bn1)\.{_NORM}'
               rf'|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])\.{_NORM}'
               rf'|layer[1-4]\.\d+\.(conv[123]|downsample\.0)\.attention\.{_KW_ATTENTION}'),
        shapes=_KW_SHAPES,
    ),
    Family(
        'KW-MobileNetV2',
        signature=r'^features\.\d+\.(conv\.)?\d+(\.\d+)?\.attention\.',
        known=(rf'warehouse_manager\.weights\.\d+|features\.\d+\.(conv\.)?\d+(\.\d+)?\.{_NORM}'
               rf'|features\.\d+\.(conv\.)?\d+(\.\d+)?\.attention\.{_KW_ATTENTION}'),
        shapes=_KW_SHAPES,
    ),
    Family(
        'KW-ConvNeXt',
        signature=r'^(stages|downsample_layers)\.\d+\.\d+\..*attention\.',
        known=(r'warehouse_manager\.weights\.\d+|downsample_layers\.[0-3]\.[01]\.(weight|bias)'
               r'|norm[0-3]\.(weight|bias)|stages\.[0-3]\.\d+\.(gamma|norm\.(weight|bias)|(dw|pw)conv[12]?\.bias)'
               rf'|(downsample_layers\.[0-3]\.[01]|stages\.[0-3]\.\d+\.(dwconv|pwconv[12]))\.attention\.'
               rf'{_KW_ATTENTION}'),
        dropped=_NORM_AND_HEAD,
        shapes=_KW_SHAPES,
    ),
    Family(
        'HAT-Net',
        signature=r'^(ds[234]\.norm\.|blocks\.\d+\.\d+\.conv\.conv1\.0\.bias$)',
        known=(r'patch_embed\.[013]\.(weight|bias)|ds[234]\.(conv|norm)\.(weight|bias)'
               r'|blocks\.[0-3]\.\d+\.attn\.(norm|grid_norm|ds_norm|qkv|q|kv|proj)\.(weight|bias)'
               r'|blocks\.[0-3]\.\d+\.conv\.(conv1\.[01]|conv2\.0|conv3\.[01])\.(weight|bias)'),
        # ``proj_norm`` is a norm that the published network holds and never calls.
        dropped=r'(fc|head|classifier)\..*|blocks\.\d+\.\d+\.attn\.proj_norm\.(weight|bias)',
    ),
    Family(
        'TransCNN',
        signature=r'^blocks\.\d+\.\d+\.(attn\.(norm|grid_norm|ds_norm)|conv\.conv[123]\.1)\.running_mean$',
        known=(rf'patch_embed\.[013]\.{_NORM}|ds[234]\.(conv|residual|norm[12])\.{_NORM}'
               rf'|blocks\.[0-3]\.\d+\.(attn\.(norm|grid_norm|ds_norm|qkv|q|kv|proj)|conv\.conv[123]\.[01])\.{_NORM}'),
    ),
    Family(
        'HorUPerHead',
        signature=r'^fpn_bottleneck\.(conv\.)?proj_in\.',
        known=(rf'(psp_modules\.\d+\.1|bottleneck|lateral_convs\.\d+|fpn_convs\.\d+|fpn_bottleneck)'
               rf'\.(conv\.(weight|bias)|[bgi]n\.{_NORM})|fpn_bottleneck\.conv\.{_GNCONV}|conv_seg\.(weight|bias)'),
        renames=((r'^(fpn_bottleneck\.)(proj_in|dwconv|pws|proj_out)\.', r'\1conv.\2.'), ),
        dropped=r'(?!)',
        shapes=_GNCONV_SHAPES,
    ),
)


def recognise(keys: Iterable[str]) -> Family | None:
    """The family to which the keys of one part (a backbone, a neck, a head) belong, or None."""
    keys = list(keys)
    return next((family for family in FAMILIES if any(re.search(family.signature, key) for key in keys)), None)
