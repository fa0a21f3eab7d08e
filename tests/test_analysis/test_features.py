"""One feature map of a model."""
import pytest
import torch
from torch import nn

for name in ('mmengine', 'mmcv'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402

from plugconv_mm.analysis.features import FeatureMap, map_of_config, open_branches  # noqa: E402
from plugconv_mm.errors import ConfigError  # noqa: E402

BACKBONE = dict(type='plugconv_mm.ParCResNet', depth=50, base_channels=4)
IMAGE = torch.rand(1, 3, 64, 64)


class Doubled(nn.Module):
    """A neck that doubles every map."""

    def forward(self, maps):
        return [2 * x for x in maps]


def test_one_of_several_maps_with_and_without_a_neck():
    backbone = nn.Identity()
    maps = [torch.rand(1, 2, side, side) for side in (4, 2)]
    assert torch.equal(FeatureMap('net', backbone, None, 1)(maps), maps[1])
    assert torch.equal(FeatureMap('net', backbone, Doubled(), -1)(maps), 2 * maps[1])
    with pytest.raises(ConfigError, match='net has 2 maps there, stages 0 to 1; there is no stage 2'):
        FeatureMap('net', backbone, None, 2)(maps)
    with pytest.raises(ConfigError, match=r'is no map but of shape \(1, 5\)'):
        FeatureMap('net', backbone, None, 0)([torch.rand(1, 5)])


@pytest.mark.parametrize('stage, out_indices, side', [
    (None, (0, 1), 8), (0, (0, 1), 16), (1, (0, 1), 8), (3, (0, 1), 2), (2, (0, 2), 4)])
def test_stages_as_out_indices_count_them(stage, out_indices, side):
    found = map_of_config(Config(dict(model=BACKBONE | dict(out_indices=out_indices))), 'net', stage=stage)
    assert found(IMAGE).shape[2:] == (side, side) and not found.training
    assert not any(p.requires_grad for p in found.parameters())


def test_scales_of_branches_are_opened():
    found = map_of_config(Config(dict(model=BACKBONE)), 'net')
    last = [m for name, m in found.named_modules() if name.endswith('bn3')]
    assert last and all((m.weight == 0).all() for m in last)
    assert open_branches(found) == len(last) and all((m.weight == 1).all() for m in last)
    assert open_branches(found) == 0
