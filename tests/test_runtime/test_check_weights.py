"""Missing weights are said before a model is built."""
import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402
from own_configs import load  # noqa: E402

from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime.check_weights import check_weights  # noqa: E402


def test_missing_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load('ade')
    with pytest.raises(ConfigError) as error:
        check_weights(cfg)
    text = str(error.value)
    assert 'checkpoints/slak_tiny.pth' in text and f'looked for from {tmp_path}' in text
    assert 'model.backbone.init_cfg.checkpoint=FILE' in text and 'model.backbone.init_cfg=None' in text
    assert 'model.backbone.init_cfg.prefix=backbone.' in text
    check_weights(load('ade', 'model.backbone.init_cfg=None'))
    (tmp_path / 'mine.pth').write_bytes(b'x')
    check_weights(load('ade', 'model.backbone.init_cfg.checkpoint=mine.pth'))
    check_weights(load('panoptic'))  # torchvision:// is fetched


def test_missing_weights_of_a_whole_model():
    """A classifier that starts from a classifier needs no prefix."""
    cfg = Config(dict(model=dict(type='ImageClassifier', init_cfg=dict(type='Pretrained', checkpoint='absent.pth'))))
    with pytest.raises(ConfigError, match=r'model\.init_cfg\.checkpoint=FILE, or .* with model\.init_cfg=None'):
        check_weights(cfg)
