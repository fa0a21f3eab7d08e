"""Models against recorded outputs of the published implementations."""
from pathlib import Path

import pytest
import recorded

FAMILIES = ('hornet', 'horfpn', 'horuper', 'parc_convnext', 'parc_mobilenetv2', 'parc_resnet', 'parcnet', 'transcnn',
            'slak')
# Kernels that depend on the input multiply rounding errors: the record of KW-ConvNeXt itself lies 3e-3 from the result
# in double precision.
WAREHOUSE_FAMILIES = ('kw_resnet', 'kw_mobilenetv2', 'kw_convnext')


@pytest.mark.parametrize('name,tolerance', [
    *[(name, 1e-4) for family in FAMILIES for name in recorded.names(family)],
    *[(name, 5e-3) for family in WAREHOUSE_FAMILIES for name in recorded.names(family)],
])
def test_model_gives_the_published_output(name, tolerance):
    registry = pytest.importorskip('plugconv_mm.registry')
    recorded.assert_model_matches(
        recorded.load(name), lambda cfg: registry.MODELS.build(cfg | dict(type=f'plugconv_mm.{cfg["type"]}')),
        tolerance=tolerance)


def test_segmentor_gives_the_published_logits():
    """DeepLabV3 with ParC-Net-S, as its config says it, at the size of the image."""
    segmentors = pytest.importorskip('mmseg.models.segmentors')
    from mmengine.registry import DefaultScope

    from plugconv_mm.runtime.options import make_parser
    from plugconv_mm.runtime.read_config import load_config

    class Logits(segmentors.EncoderDecoder):

        def forward(self, images):
            return self.encode_decode(images, [dict(img_shape=tuple(images.shape[2:]))])

    def build(settings):
        path = Path(__file__).parents[2] / 'configs' / f'{settings["config"]}.py'
        cfg = load_config(make_parser('').parse_args([str(path)]))
        cfg.model.pop('type')
        cfg.model.backbone.pop('init_cfg')
        with DefaultScope.overwrite_default_scope('mmseg'):
            return Logits(**cfg.model)

    recorded.assert_model_matches(recorded.load('parcnet_s_deeplabv3'), build, tolerance=1e-4)
