"""Models side by side."""
import pytest
from torch import nn

pytest.importorskip('mmengine')

from plugconv_mm.analysis.compare import MeasuredCost, compare  # noqa: E402
from plugconv_mm.analysis.memory import weight_bytes  # noqa: E402
from plugconv_mm.ops import ParC2d  # noqa: E402


def test_latency_is_median_and_quartiles():
    assert MeasuredCost(0, 0, [5., 1., 3., 2., 4.]).latency == (3, 2, 4)
    assert MeasuredCost(0, 0, [7.]).latency == (7, 7, 7)


class Net(nn.Module):
    """A backbone, a neck and a head, as a classifier has them."""

    def __init__(self, width=4):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), ParC2d(width, 'H', 4))
        self.neck = nn.Conv2d(width, 8, 1, bias=False)
        self.head = nn.Conv2d(8, 2, 1, bias=False)


@pytest.fixture(scope='module')
def reports():
    lines = []
    found = compare({'thin': Net(), 'wide': Net(16)}, (16, 24), batch=2, rounds=3, progress=lines.append)
    assert 'round 3 of 3' in lines
    return found


def test_parts_sum_up(reports):
    thin, wide = reports
    assert [report.name for report in reports] == ['thin', 'wide']
    for report in reports:
        assert list(report.parts) == ['backbone', 'neck', 'head']
        assert report.whole.params == sum(part.params for part in report.parts.values())
        assert report.whole.macs == sum(part.macs for part in report.parts.values())
        assert all(len(part.milliseconds) == 3 for part in report.parts.values())
        for total, *parts in zip(report.whole.milliseconds, *(p.milliseconds for p in report.parts.values()),
                                 strict=True):
            assert total == pytest.approx(sum(parts)) and min(parts) > 0
        assert report.whole.memory == max(part.memory for part in report.parts.values())
        assert report.backends == {'spatial': 1} or sum(report.backends.values()) == 1
    assert thin.parts['head'].macs == 16 * 24 * 8 * 2  # of one image
    assert wide.parts['backbone'].memory > thin.parts['backbone'].memory


def test_memory_holds_weights_images_and_maps(reports):
    pixels = 2 * 16 * 24 * 4  # bytes of a channel of the batch
    held = weight_bytes(Net()) + pixels * (3 + 8 + 2)  # images, the neck's map and the head's
    assert held <= reports[0].parts['head'].memory <= held + 16 * pixels


def test_the_backend_of_a_layer_is_what_ran():
    model = Net()
    model.backbone[1].backend = 'fft'
    assert compare({'net': model}, (8, 8), rounds=1)[0].backends == {'fft': 1}


def test_a_bare_backbone_has_one_part():
    report = compare({'conv': nn.Conv2d(3, 2, 1)}, (8, 8), rounds=1)[0]
    assert list(report.parts) == ['backbone'] and report.whole.macs == 8 * 8 * 6
