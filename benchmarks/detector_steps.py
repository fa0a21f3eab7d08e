"""A training step of detectors of the digits, beside the same detector in the papers' own formulation.

    python -m benchmarks.detector_steps [CONFIG ...]

Loss and gradients of one batch of `data/digits`, which `tools/dataset_converters/digits.py` makes. Both detectors share
their parameters, which are random; the losses are compared as well.
"""
from pathlib import Path

import torch
from mmengine.runner import Runner
from torch import nn

from benchmarks.median_times import median_times
from benchmarks.published import published
from benchmarks.results import Results, header, line, make_parser
from plugconv_mm.analysis import build_model
from plugconv_mm.runtime.read_config import read_config

CONFIGS = ('configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py',
           'configs/digits/faster-rcnn_r50-thin-parc_horfpn_digits.py',
           'configs/digits/upernet_parc-resnet50-thin_digits.py')


def measure(path: str, seconds: float) -> dict[str, float]:
    """Milliseconds of both, and the difference of their losses relative to the loss."""
    torch.manual_seed(0)
    config = read_config(path)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    model = build_model(config).train()
    batch = model.data_preprocessor(next(iter(Runner.build_dataloader(config.train_dataloader, seed=0))), True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = {}

    def step(name: str, network: nn.Module) -> None:
        torch.manual_seed(1)  # of the samplers of regions
        losses[name], _ = network.parse_losses(network(**batch, mode='loss'))
        torch.autograd.grad(losses[name], parameters, allow_unused=True)

    both = dict(published=published(model), ours=model)
    times = median_times({name: lambda name=name, network=network: step(name, network)
                          for name, network in both.items()}, seconds, rounds=3, warm_ups=1)
    loss = losses['published'].item()
    return {**times, 'images': len(batch['inputs']), 'difference': abs(losses['ours'].item() - loss) / abs(loss)}


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'detector_steps')
    parser.add_argument('configs', nargs='*', default=CONFIGS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('config', 'images', 'published, ms', 'ours, ms', 'ratio', 'difference of the losses')
    for path in args.configs:
        row = results.row(path, lambda path=path: measure(path, args.seconds))
        line(Path(path).stem, row['images'], round(row['published']), round(row['ours']),
             row['published'] / row['ours'], row['difference'])


if __name__ == '__main__':
    main()
