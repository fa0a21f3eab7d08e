"""Published classifiers, from their files to the logits that the published implementations gave."""
import pytest
import recorded
import torch
from repository import ROOT

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.runner import load_checkpoint  # noqa: E402
from random_state import randomise  # noqa: E402

from plugconv_mm.checkpoint import convert_official, write_checkpoint  # noqa: E402
from plugconv_mm.runtime.build import build_model  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402
from plugconv_mm.runtime.weights import build_with_weights  # noqa: E402

RECORDS = [pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem == 'cls_hat_net_medium' else [])
           for path in sorted(recorded.FOLDER.glob('cls_*.json'))]


@pytest.mark.parametrize('name', RECORDS)
def test_a_published_file_gives_the_published_logits(name, tmp_path):
    """As tools/test.py and the demo load it: the file as it is, into the classifier of the config."""
    record = recorded.load(name)
    published = recorded.checkpoint(record)
    write_checkpoint({'model': published, 'epoch': 299}, tmp_path / 'published.pth')
    model = build_with_weights(read_config(str(ROOT / record['classifier'])), str(tmp_path / 'published.pth'))
    for number, case in enumerate(record['cases']):
        with torch.no_grad():
            logits = model(recorded.inputs(record, number))
        # Kernels that depend on the input multiply rounding errors.
        recorded.assert_matches(logits, *case['outputs'], tolerance=5e-3 if '_kw_' in name else 1e-4)
    converted = convert_official(published, classifier=True)
    assert converted.keys() == model.state_dict().keys()
    assert all(torch.equal(converted[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize('arch, config', [
    pytest.param('tiny', 'hornet-tiny-7x7_32xb128_in1k', marks=pytest.mark.slow),
    ('tiny-gf', 'hornet-tiny-gf_32xb128_in1k')])
def test_a_file_of_mmpretrain_gives_the_logits_of_mmpretrain(arch, config, tmp_path):
    """HorNet as mmpretrain hosts it, under its own names."""
    theirs = build_model(read_config(f'mmpretrain::hornet/hornet-{arch}_8xb128_in1k.py')).eval()
    randomise(theirs)
    write_checkpoint({'state_dict': theirs.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    ours = build_with_weights(read_config(str(ROOT / f'configs/hornet/{config}.py')), str(tmp_path / 'x.pth'))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_fine_tuning_starts_from_a_published_classifier(tmp_path):
    """With other classes, all but the last layer is taken."""
    published = recorded.checkpoint(recorded.load('cls_parcnet_s'))
    write_checkpoint({'model': published}, tmp_path / 'published.pth')
    cfg = read_config(str(ROOT / 'configs/parc/parcnet-s_8xb128_in1k-256px.py'))
    cfg.model.head.num_classes = 10
    model = build_model(cfg)
    last = model.head.fc.weight.clone()
    load_checkpoint(model, str(tmp_path / 'published.pth'), map_location='cpu')
    taken = convert_official(published, classifier=True)
    for key, value in model.state_dict().items():
        assert key.startswith('head.') or torch.equal(value, taken[key]), key
    assert torch.equal(model.head.fc.weight, last)
