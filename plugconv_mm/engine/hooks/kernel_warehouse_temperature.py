"""The schedule of the temperature of KernelWarehouse's attentions.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879.
"""
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from plugconv_mm.errors import ConfigError
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class KernelWarehouseTemperatureHook(Hook):
    """Linear decay of the temperature τ, from 1, where every mixture is one fixed cell, to 0, where attention decides.

    It is for training from scratch. τ changes in every iteration and depends on the iteration alone, so that a resumed
    run continues with the right value. In evaluation τ is 0, as it is in models that are trained without this hook:
    fine-tuning does not need it.

    Args:
        epochs: Length of the decay in epochs: 20 in general, 15 for MobileNetV2.
        iters: Length of the decay in iterations, in place of ``epochs``; needed by ``IterBasedTrainLoop``, which has no
            epochs.

    Raises:
        ConfigError: The length is not positive, the loop has no epochs and ``iters`` is not given, or the model
            has no warehouse.

    Example:
        In a config that trains KW-ResNet from scratch::

            custom_hooks = [dict(type='plugconv_mm.KernelWarehouseTemperatureHook', epochs=20)]
    """

    def __init__(self, epochs: float = 20, iters: int | None = None) -> None:
        if (epochs if iters is None else iters) <= 0:
            raise ConfigError(
                f'the temperature needs a positive time to go to 0, got epochs={epochs}, iters={iters}')
        self.epochs, self.iters = epochs, iters

    def before_train(self, runner: Runner) -> None:
        if self.iters is None and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ConfigError(
                'KernelWarehouseTemperatureHook: this training counts iterations, not epochs; say how '
                'many the temperature takes to go to 0 with iters=...')
        self._length = self.iters or self.epochs * len(runner.train_dataloader)
        self._warehouses = [m for m in runner.model.modules() if isinstance(m, KernelWarehouse)]
        if not self._warehouses:
            raise ConfigError(
                'KernelWarehouseTemperatureHook: the model has no KernelWarehouse; leave out the hook')

    def _set(self, temperature: float) -> None:
        for warehouse in self._warehouses:
            warehouse.set_temperature(temperature)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        temperature = max(1 - runner.iter / self._length, 0.)
        self._set(temperature)
        runner.message_hub.update_scalar('train/temperature', temperature)

    def before_val(self, runner: Runner) -> None:
        # Outside of training it is 0 already, as models are built.
        if hasattr(self, '_warehouses'):
            self._set(0.)

    before_test = after_train = before_val
