"""Backbones beside the papers' own formulation of the same networks, timed in one process.

    python -m benchmarks.backbones [--families slak hornet-gf ...] [--modes large training ...] [--threads 2]

Both share their parameters, which are random. Their outputs, and in training the gradients, are compared as well.
"""
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.median_times import median_times
from benchmarks.published import published
from benchmarks.results import Results, header, line, make_parser

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


def described(shape: tuple[int, int, int], training: bool) -> str:
    """Number, height and width of images, and the mode, as tables and results name them."""
    return '×'.join(map(str, (shape[0], 3, *shape[1:]))) + (', training' if training else '')


def measure(case: Case, shape: tuple[int, int, int], training: bool, seconds: float) -> dict[str, float]:
    """Time both formulations.

    Returns:
        Times in milliseconds by name, and as ``difference`` the largest relative one of outputs or gradients.
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
    return {**times, 'difference': difference(results['ours'], results['published'])}


MODES = dict(large='one image of a detector', small='8 images of 224 pixels', training='a training step of 2 of them',
             training_large='a training step of 2 images of about 512 pixels')


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'backbones')
    parser.add_argument('--families', nargs='+', choices=CASES, default=list(CASES), metavar='NAME',
                        help=f'some of {", ".join(CASES)}; default all')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=tuple(MODES), metavar='MODE',
                        help=f'some of {"; ".join(f"{mode}, {text}" for mode, text in MODES.items())}; default all')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('network', 'input', 'published, ms', 'ours, ms', 'ratio', 'difference')
    wrong = []
    for name in args.families:
        case = CASES[name]
        for mode in args.modes:
            training = mode.startswith('training')
            if training and case.deploy:
                continue
            side = case.nearest(512) if mode == 'training_large' else case.side
            shape = (1, *case.large) if mode == 'large' else (2 if training else 8, side, side)
            kind = described(shape, training)
            row = results.row(f'{name} {kind}', lambda case=case, shape=shape, training=training: measure(
                case, shape, training, args.seconds))
            line(name, kind, round(row['published']), round(row['ours']), row['published'] / row['ours'],
                 row['difference'])
            if not row['difference'] <= case.tolerance:
                wrong.append(f'{name} at {kind}: {row["difference"]:.1e}')
    if wrong:
        raise SystemExit('outputs or gradients differ: ' + '; '.join(wrong))


if __name__ == '__main__':
    main()
