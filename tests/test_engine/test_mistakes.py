"""Mistakes in the settings of hooks, constructors and strategies are errors of the user, shown without a traceback."""
import pytest

for name in ('mmengine', 'mmcv'):
    pytest.importorskip(name)

from mmengine.config import ConfigDict  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from torch import nn  # noqa: E402

from plugconv_mm.engine.hooks import DynamicSparsityHook, KernelWarehouseTemperatureHook  # noqa: E402
from plugconv_mm.engine.optimizers.learning_rate_decay import layer_ids  # noqa: E402
from plugconv_mm.engine.strategies import FSDPStrategy  # noqa: E402
from plugconv_mm.errors import ConfigError  # noqa: E402


class Model(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 3, 1)


def runner(**settings):
    return ConfigDict(model=Model(), train_loop=None, train_dataloader=[0], **settings)


def optimizer(**paramwise):
    return build_optim_wrapper(Model(), dict(
        constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor', paramwise_cfg=paramwise,
        optimizer=dict(type='SGD', lr=0.1)))


@pytest.mark.parametrize('mistake', [
    lambda: DynamicSparsityHook(sparsity=2),
    lambda: DynamicSparsityHook(growth='none'),
    lambda: DynamicSparsityHook(update_frequency=0),
    lambda: DynamicSparsityHook().before_train(runner(optim_wrapper=None)),
    lambda: KernelWarehouseTemperatureHook(epochs=0),
    lambda: KernelWarehouseTemperatureHook().before_train(runner()),
    lambda: FSDPStrategy(model_wrapper=dict(use_orig_params=False)),
    lambda: optimizer(),
    lambda: optimizer(decay_rate=2, decay_type='layer_wise', num_layers=6),
    lambda: optimizer(decay_rate=0.9, decay_type='none', num_layers=6),
    lambda: optimizer(decay_rate=0.9, decay_type='layer_wise', num_layers=6),
    lambda: layer_ids(nn.Linear(2, 2), 'layer_wise', 6),
])
def test_users_can_mend_them(mistake):
    with pytest.raises(ConfigError) as error:
        mistake()
    assert isinstance(error.value, ValueError)  # as before they had a class of their own
