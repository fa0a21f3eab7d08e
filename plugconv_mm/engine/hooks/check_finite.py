"""A check of inputs and losses for NaN and infinity."""
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from plugconv_mm.errors import NonFiniteError
from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """A check that stops training at the first input or loss that is NaN or infinite.

    It runs before the hooks that log and save, so no checkpoint with such weights is written. It reads the losses that
    are logged anyway, in every iteration.

    Raises:
        NonFiniteError: In training, at such an input or loss; the message names the images of the batch.
    """
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        inputs = (data_batch or {}).get('inputs')
        for number, tensor in enumerate([] if inputs is None else inputs):
            if torch.is_tensor(tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NonFiniteError(
                    f'the input holds NaN or infinity at iteration {runner.iter + 1}, in '
                    f'{", ".join(_images(data_batch)[number:number + 1]) or f"image {number} of the batch"}. '
                    'Look at this file and at the transforms of the training pipeline.')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        wrong = [f'{name} = {float(value.detach().float().sum())}' for name, value in (outputs or {}).items()
                 if torch.is_tensor(value) and 'loss' in name and not torch.isfinite(value).all()]
        if wrong:
            raise NonFiniteError(
                f'the loss is not finite at iteration {runner.iter + 1}: {", ".join(wrong)}.\n'
                f'The images of this batch: {", ".join(_images(data_batch)) or "unknown"}.\n'
                'Try a lower learning rate (--cfg-options optim_wrapper.optimizer.lr=...), a longer warm-up, gradient '
                'clipping (optim_wrapper.clip_grad.max_norm=5), or training without --amp; if it is always the same '
                'image, look at its annotations. --resume goes on from the last checkpoint, saved before this.')


def _images(data_batch: dict | None) -> list[str]:
    """The files of a batch's images, if its samples name them."""
    samples = (data_batch or {}).get('data_samples')
    if not isinstance(samples, (list, tuple)):  # bare labels
        return []
    return [str(sample.get('img_path', 'unnamed')) for sample in samples]
