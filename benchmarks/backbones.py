"""Backbones beside the papers' own formulation of the same networks, timed in one process.

    python -m benchmarks.backbones [--families slak hornet-gf ...] [--shapes 1x800x1344 ...] [--threads 2]

Both share their parameters, which are random. Their outputs, and in training the gradients, are compared as well.
"""
import argparse
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.median_times import median_times
from benchmarks.published import published

# A network whose kernels depend on its input multiplies rounding errors.
TOLERANCE, WAREHOUSE_TOLERANCE = 1e-3, 2e-2


@dataclass(frozen=True)
class Case:
    """A network of a paper, and the images that it is timed with.

    Attributes:
        build: Config of the network.
        large: Height and width of the larger image.
        side: Height and width of the smaller images.
        multiple: What the sides of an image must be multiples of in the published formulation.
        deploy: Whether it is brought into its deployment form.
        tolerance: The largest difference between both formulations.
    """
    build: dict
    large: tuple[int, int] = (800, 1344)
    side: int = 224
    multiple: int = 32
    deploy: bool = False
    tolerance: float = TOLERANCE

    def nearest(self, side: int) -> int:
        """The side nearest to another that the network can take, in pixels."""
        return max(1, round(side / self.multiple)) * self.multiple


CASES = {
    'hornet-7x7': Case(dict(type='HorNet', arch='tiny-7x7')),
    'hornet-gf': Case(dict(type='HorNet', arch='tiny-gf')),
    'slak': Case(dict(type='SLaK', arch='tiny')),
    'slak-deployed': Case(dict(type='SLaK', arch='tiny'), deploy=True),
    'transcnn': Case(dict(type='TransCNN', arch='small'), large=(512, 1024), side=256, multiple=256),
    'hat-net': Case(dict(type='HATNet', arch='small'), large=(448, 896), multiple=224),
    'parc-resnet': Case(dict(type='ParCResNet', depth=50)),
    'parc-convnext': Case(dict(type='ParCConvNeXt', arch='xt')),
    'parc-mobilenetv2': Case(dict(type='ParCMobileNetV2')),
    'parcnet': Case(dict(type='ParCNet', arch='s')),
    'kw-resnet': Case(dict(type='KWResNet', depth=50), tolerance=WAREHOUSE_TOLERANCE),
    'kw-mobilenetv2': Case(dict(type='KWMobileNetV2'), tolerance=WAREHOUSE_TOLERANCE),
    'kw-convnext': Case(dict(type='KWConvNeXt', arch='tiny'), tolerance=WAREHOUSE_TOLERANCE),
}


def build(case: Case) -> tuple[nn.Module, nn.Module]:
    """Build our network, and its published form with the same parameters."""
    from plugconv_mm.registry import MODELS
    torch.manual_seed(0)
    model = MODELS.build(case.build | dict(type=f'plugconv_mm.{case.build["type"]}'))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if 'gamma' in name:  # with its initial value a block has hardly any effect
                p.uniform_(0.1, 0.5)
        for m in model.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)
    model.eval()
    reference = published(model)
    if case.deploy:
        model.switch_to_deploy()
    return model, reference


def difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest difference, relative to the greatest value in its tensor.

    In a tensor more than ten times smaller than the greatest of all it is relative to a tenth of that one: the gradient
    of a bias before a normalisation is a sum of rounding errors over all positions.
    """
    greatest = [b.abs().max().item() for b in theirs]
    floor = 0.1 * max(greatest)
    return max((a - b).abs().max().item() / max(g, floor) for a, b, g in zip(ours, theirs, greatest, strict=True))


def gradients(model: nn.Module, image: torch.Tensor, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    """Compute the gradients of a training step."""
    loss = sum(y.square().mean() for y in model(image))
    return list(torch.autograd.grad(loss, parameters))


def measure(case: Case, shape: tuple[int, int, int], training: bool, seconds: float) -> tuple[dict, float]:
    """Time both formulations.

    Returns:
        Times in milliseconds by name, and the largest relative difference of outputs or gradients.
    """
    model, reference = build(case)
    image = torch.randn(shape[0], 3, *shape[1:])
    model.train(training)
    reference.train(training)
    both = {'published': reference, 'ours': model}
    parameters = [p for p in model.parameters() if p.requires_grad]
    results = {}

    def call(name: str) -> None:
        if training:
            results[name] = gradients(both[name], image, parameters)
        else:
            with torch.inference_mode():
                results[name] = both[name](image)

    times = median_times({name: lambda name=name: call(name) for name in both}, seconds, rounds=3, warm_ups=1)
    if training:  # in float32, gradients of norms with statistics of so few maps are wrong by percents
        image = image.double()
        for name, network in both.items():
            network.double()
            call(name)
    return times, difference(results['ours'], results['published'])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--families', nargs='+', choices=CASES, default=list(CASES), metavar='NAME',
                        help=f'some of {", ".join(CASES)}; default all')
    parser.add_argument('--modes', nargs='+', choices=('large', 'small', 'training'),
                        default=('large', 'small', 'training'),
                        help='one image of a detector, 8 of 224 pixels, a training step; default all')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=2, help='about how long to time each line')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f'float32, {args.threads} threads; milliseconds, medians of interleaved calls\n')
    print(f'{"network":<17} {"input":<14} {"":<10} {"published":>9} {"ours":>9} {"ratio":>6}  difference', flush=True)
    wrong = []
    for name in args.families:
        case = CASES[name]
        for mode in args.modes:
            if mode == 'training' and case.deploy:
                continue
            shape = (1, *case.large) if mode == 'large' else (8 if mode == 'small' else 2, case.side, case.side)
            times, diff = measure(case, shape, mode == 'training', args.seconds)
            size = f'{shape[0]}x3x{shape[1]}x{shape[2]}'
            print(f'{name:<17} {size:<14} {"training" if mode == "training" else "inference":<10} '
                  f'{times["published"]:9.0f} {times["ours"]:9.0f} {times["published"] / times["ours"]:6.2f}  '
                  f'{diff:.1e}', flush=True)
            if not diff <= case.tolerance:
                wrong.append(f'{name} at {size}: {diff:.1e}')
    if wrong:
        raise SystemExit('outputs or gradients differ: ' + '; '.join(wrong))


if __name__ == '__main__':
    main()
