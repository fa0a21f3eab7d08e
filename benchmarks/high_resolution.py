"""A ParC network at a detector's test resolution: the backend of each ParC, and the time that it saves.

    python -m benchmarks.high_resolution [CONFIG] [--shape 800 1344]

Without a config it is the ParC-ResNet-50 of the paper. Weights are random: they do not change the time.
"""
import argparse
import copy

import torch
from torch import Tensor, nn

from benchmarks.median_times import median_times
from plugconv_mm.ops import ParC2d


def build(config: str | None) -> nn.Module:
    """Build the backbone of a config of mmdet, mmseg or mmpretrain, or ParC-ResNet-50."""
    from mmengine.config import Config

    from plugconv_mm.registry import MODELS
    backbone = Config.fromfile(config).model.backbone if config else dict(type='plugconv_mm.ParCResNet', depth=50)
    return MODELS.build(backbone).eval()


def parc_layers(model: nn.Module) -> dict[str, ParC2d]:
    """Find the ParC layers of a model, by name."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ParC2d)}
    if not layers:
        raise SystemExit(f'{type(model).__name__} has no ParC layer. Give a config whose backbone has some.')
    return layers


@torch.inference_mode()
def record_inputs(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Record the input of each ParC layer in a forward pass, by name."""
    inputs = {}
    hooks = [layer.register_forward_hook(lambda m, args, y, name=name: inputs.update({name: args[0]}))
             for name, layer in parc_layers(model).items()]
    model(image)
    for hook in hooks:
        hook.remove()
    return inputs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', help='config with a ParC backbone; default: ParC-ResNet-50')
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = build(args.config)
    spatial = copy.deepcopy(model)
    for layer in parc_layers(spatial).values():
        layer.backend = 'spatial'
    image = torch.randn(args.batch, 3, *args.shape)
    inputs, reference = record_inputs(model, image), parc_layers(spatial)

    print(f'{type(model).__name__}, {args.batch}x3x{args.shape[0]}x{args.shape[1]}, {args.threads} threads; '
          'milliseconds, medians of interleaved calls\n')
    print(f'{"layer":<24} {"map":<18} {"backend":<9} {"auto":>8} {"spatial":>9}  ratio')
    with torch.inference_mode():
        totals = [0., 0.]
        for name, layer in parc_layers(model).items():
            x = inputs[name]
            times = median_times(dict(auto=lambda layer=layer, x=x: layer(x),
                                     spatial=lambda layer=reference[name], x=x: layer(x)), seconds=0.3)
            totals = [totals[0] + times['auto'], totals[1] + times['spatial']]
            print(f'{name:<24} {"x".join(map(str, x.shape)):<18} {layer.select_backend(x):<9} {times["auto"]:8.2f} '
                  f'{times["spatial"]:9.2f} {times["spatial"] / times["auto"]:6.1f}')
        print(f'{"all ParC layers":<53} {totals[0]:8.2f} {totals[1]:9.2f} {totals[1] / totals[0]:6.1f}')
        times = median_times(dict(auto=lambda: model(image), spatial=lambda: spatial(image)), seconds=5)
        print(f'{"the whole backbone":<53} {times["auto"]:8.0f} {times["spatial"]:9.0f} '
              f'{times["spatial"] / times["auto"]:6.2f}')
        worst = max(((a - b).norm() / b.norm()).item()
                    for a, b in zip(model(image), spatial(image), strict=True))
    print(f'largest relative difference between the two models\' outputs: {worst:.1e}')


if __name__ == '__main__':
    main()
