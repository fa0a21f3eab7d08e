"""The command that folds a trained checkpoint."""
import pytest
import torch

pytest.importorskip('mmseg')

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from plugconv_mm.models.backbones import SLaK  # noqa: E402

SLIM = dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]), kernel_size=(13, 11, 9, 5), width_factor=1)


def segmentor(**kwargs):
    """A trained segmentor of mmseg."""
    from mmseg.registry import MODELS
    torch.manual_seed(0)
    model = MODELS.build(dict(
        _scope_='mmseg', type='EncoderDecoder', backbone=dict(type='plugconv_mm.SLaK', **SLIM, **kwargs),
        decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_classes=3, norm_cfg=dict(
            type='BN')), test_cfg=dict(mode='whole')))
    for name, value in model.state_dict().items():
        if name.endswith(('running_mean', 'running_var', 'gamma')):
            value.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def logits(model):
    return model._forward(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize('source, target', [('pth', 'pth'), ('pth', 'safetensors'), ('safetensors', 'pth')])
def test_a_whole_model(tmp_path, tool, source, target):
    from mmengine.runner import load_checkpoint
    model = segmentor()
    src, dst = tmp_path / f'trained.{source}', tmp_path / f'deployed.{target}'
    meta = dict(epoch=3, dataset_meta=dict(classes=('a', 'b', 'c')))
    write_checkpoint(model.state_dict() if source == 'safetensors' else
                     dict(state_dict=model.state_dict(), meta=meta, optimizer=dict(state={})), src)
    status, said, complaint = tool('switch_to_deploy.py', src, dst)
    assert status == 0, complaint
    assert '4 large kernels folded' in said
    deployed = segmentor(deploy=True)
    for parameter in deployed.parameters():
        torch.nn.init.zeros_(parameter)
    load_checkpoint(deployed, str(dst), strict=True)
    torch.testing.assert_close(logits(deployed), logits(model), atol=1e-4, rtol=0)
    written = read_checkpoint(dst)
    if source == target == 'pth':
        assert written.keys() == {'state_dict', 'meta'} and written['meta'] == meta
    else:
        assert written.keys() == deployed.state_dict().keys()


def test_a_published_backbone(tmp_path, tool):
    model = segmentor().backbone
    published = {key.replace('.vertical.', '.LoRA1.').replace('.horizontal.', '.LoRA2.'): value
                 for key, value in model.state_dict().items()}
    write_checkpoint({'model': {**published, 'head.weight': torch.zeros(10, 64)}}, tmp_path / 'published.pth')
    status, _, complaint = tool('switch_to_deploy.py', tmp_path / 'published.pth', tmp_path / 'deployed.pth')
    assert status == 0, complaint
    model.switch_to_deploy()
    deployed = SLaK(**SLIM, deploy=True)
    deployed.load_state_dict(read_checkpoint(tmp_path / 'deployed.pth')['state_dict'], strict=True)
    torch.testing.assert_close(dict(deployed.state_dict()), dict(model.state_dict()))


def test_deployed_checkpoints_and_others_come_out_as_they_were(tmp_path, tool):
    deployed = segmentor(deploy=True).state_dict()
    for state in (deployed, {'backbone.conv.weight': torch.rand(3)}):
        write_checkpoint(state, tmp_path / 'x.pth')
        status, said, complaint = tool('switch_to_deploy.py', tmp_path / 'x.pth', tmp_path / 'y.pth')
        assert status == 0, complaint
        assert '0 large kernels folded' in said
        torch.testing.assert_close(read_checkpoint(tmp_path / 'y.pth'), dict(state), rtol=0, atol=0)


def test_eps(tmp_path, tool):
    model = SLaK(**SLIM, norm_cfg=dict(type='BN', eps=0.25))
    write_checkpoint(model.state_dict(), tmp_path / 'x.pth')
    assert tool('switch_to_deploy.py', tmp_path / 'x.pth', tmp_path / 'y.pth', '--eps', 0.25)[0] == 0
    model.switch_to_deploy()
    torch.testing.assert_close(read_checkpoint(tmp_path / 'y.pth'), dict(model.state_dict()))


def test_what_is_wrong_is_said(tmp_path, tool):
    src, dst = tmp_path / 'x.pth', tmp_path / 'y.pth'
    write_checkpoint(SLaK(**SLIM, norm_cfg=dict(type='GN', num_groups=1)).state_dict(), src)
    dst.write_bytes(b'old')
    for path, message in ((src, 'cannot be folded'), (tmp_path / 'missing.pth', 'there is no checkpoint')):
        status, _, complaint = tool('switch_to_deploy.py', path, dst)
        assert status == 1 and complaint.startswith('error: ') and message in complaint
    assert dst.read_bytes() == b'old'
