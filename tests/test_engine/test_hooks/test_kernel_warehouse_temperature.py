import pytest
import torch

pytest.importorskip('mmengine')

import tiny_training  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402

from plugconv_mm.engine.hooks import KernelWarehouseTemperatureHook  # noqa: E402


class Thermometer(Hook):
    """What the layers see in each forward pass."""

    def before_train(self, runner):
        self.seen = []
        runner.model.dynamic.attention.register_forward_pre_hook(
            lambda module, args: self.seen.append(('train' if module.training else 'val', args[1])))


def runner(folder, by_epoch=True, checkpoint=None, **options):
    cfg = tiny_training.config(by_epoch)
    cfg.custom_hooks = [dict(type='plugconv_mm.KernelWarehouseTemperatureHook', **options)]
    built = tiny_training.resume(folder, cfg, checkpoint) if checkpoint else tiny_training.build(folder, cfg)
    built.register_hook(Thermometer())
    return built


def seen(built, mode):
    return [t for m, t in next(h for h in built.hooks if isinstance(h, Thermometer)).seen if m == mode]


@pytest.mark.parametrize('by_epoch, options', [(True, dict(epochs=2)), (True, dict(iters=6)), (False, dict(iters=6))])
def test_linear_by_iteration_and_none_in_evaluation(tmp_path, by_epoch, options):
    built = runner(tmp_path, by_epoch, **options)
    built.train()
    assert seen(built, 'train') == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0, 0])
    assert seen(built, 'val') == [0.] * 9
    assert built.model.dynamic.warehouse.temperature == 0


def test_resumes_midway(tmp_path):
    runner(tmp_path / 'whole', epochs=2).train()
    built = runner(tmp_path / 'resumed', checkpoint=tmp_path / 'whole' / 'epoch_1.pth', epochs=2)
    built.train()
    assert seen(built, 'train') == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0, 0, 0])


def test_every_warehouse_and_no_other_model(tmp_path):
    from plugconv_mm.ops import KernelWarehouse, KWConv2d
    built = runner(tmp_path, epochs=20)
    built.model.more = KWConv2d(4, 4, 1)
    built.train()
    warehouses = [m for m in built.model.modules() if isinstance(m, KernelWarehouse)]
    assert len(warehouses) == 2 and all(warehouse.temperature == 0 for warehouse in warehouses)
    assert seen(built, 'train')[-1] == pytest.approx(1 - 8 / 60)


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match='positive time'):
        KernelWarehouseTemperatureHook(epochs=0)
    with pytest.raises(ValueError, match='counts iterations, not epochs'):
        runner(tmp_path, by_epoch=False, epochs=2).train()
    built = runner(tmp_path)
    built.model.dynamic = torch.nn.Conv2d(16, 16, 1)
    built._hooks = [hook for hook in built.hooks if not isinstance(hook, Thermometer)]
    with pytest.raises(ValueError, match='has no KernelWarehouse'):
        built.train()
