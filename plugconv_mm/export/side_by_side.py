"""The test of a config for several forms of one model at once."""
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from prettytable import PrettyTable

from plugconv_mm.runtime.defaults import set_pretrain_dataloaders

POINTS = 0.1  # that a figure of another form may differ
_MAIN = ('mAP', 'mIoU', 'top1')  # ends of the names of figures that papers quote


@torch.no_grad()
def evaluate_side_by_side(cfg: Config, models: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Evaluate forms of a model on the test data of its config, batch by batch in turns.

    Args:
        cfg: The whole config.
        models: Name of each form, and the form: anything with ``test_step``.

    Returns:
        The figures of the config's evaluators for each form, and the median ``seconds`` of a batch.
    """
    set_pretrain_dataloaders(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
        evaluators = {name: Evaluator(cfg.test_evaluator) for name in models}
        times: dict[str, list[float]] = {name: [] for name in models}
        bar = ProgressBar(len(loader))
        for evaluator in evaluators.values():
            evaluator.dataset_meta = loader.dataset.metainfo
        for batch in loader:
            for name, model in models.items():
                start = time.perf_counter()
                # A preprocessor may change the samples of a batch.
                samples = model.test_step(dict(batch, data_samples=[s.clone() for s in batch['data_samples']]))
                times[name].append(time.perf_counter() - start)
                evaluators[name].process(data_samples=samples, data_batch=batch)
            bar.update()
        print()
        return {name: {**evaluators[name].evaluate(len(loader.dataset)), 'seconds': median(times[name])}
                for name in models}


def compare_figures(cfg: Config, models: Mapping[str, Any], results: Mapping[str, Mapping[str, float]]) -> str:
    """Write the figures of :func:`evaluate_side_by_side` as a table.

    Args:
        cfg: The whole config.
        models: The forms by name.
        results: Their figures, those of PyTorch first.

    Returns:
        The table, in points of a hundred and milliseconds, and below it a line for each figure that differs from that
        of PyTorch by more than ``POINTS``, with what is known of the reason.
    """
    unit = 100 if cfg.get('default_scope') == 'mmdet' else 1
    (first, reference), *others = results.items()
    names = [name for name in reference if name.endswith(_MAIN)] or [name for name in reference if name != 'seconds']
    table = PrettyTable(['form', *names, 'ms a batch'], align='r')
    table.align['form'] = 'l'
    for form, figures in results.items():
        table.add_row([form, *(f'{unit * figures[name]:.2f}' for name in names), f'{1e3 * figures["seconds"]:.1f}'])
    differing = []
    for form, figures in others:
        for name in names:
            if not abs(figures[name] - reference[name]) * unit <= POINTS + 1e-6:
                line = f'{name} of {form} is {unit * figures[name]:.2f}, and {unit * reference[name]:.2f} in {first}'
                differing.append('; '.join((line, *sorted(getattr(models[form], 'differences', ())))))
    return '\n'.join((table.get_string(), *differing))
