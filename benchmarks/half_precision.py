"""Backbones in bfloat16 under autocast beside float32, in turns.

    python -m benchmarks.half_precision [--families slak hornet-gf ...] [--side 512] [--training]

The difference of the outputs is relative to their largest value.
"""
import torch

from benchmarks.backbones import CASES, build, described, difference, gradients
from benchmarks.median_times import median_times
from benchmarks.results import Results, header, line, make_parser


def measure(name: str, side: int, training: bool, seconds: float) -> dict[str, float]:
    """Milliseconds in both types, and the difference of the outputs."""
    model, _ = build(CASES[name])
    model.train(training)
    parameters = [p for p in model.parameters() if p.requires_grad]
    image = torch.randn(2 if training else 1, 3, side, side)

    def call(half: bool) -> list[torch.Tensor]:
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            if training:
                return gradients(model, image, parameters)
            with torch.inference_mode():
                return [y.float() for y in model(image)]

    times = median_times({'float32': lambda: call(False), 'bfloat16': lambda: call(True)}, seconds, warm_ups=1)
    return {**times, 'difference': difference(call(True), call(False))}


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'half_precision')
    parser.add_argument('--families', nargs='+', choices=CASES, default=list(CASES), metavar='NAME')
    parser.add_argument('--side', type=int, default=512, help='height and width of the image, in pixels')
    parser.add_argument('--training', action='store_true', help='forward and backward of two images')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('network', 'input', 'float32, ms', 'bfloat16, ms', 'ratio', 'difference')
    for name in args.families:
        side = CASES[name].nearest(args.side)
        kind = described((2 if args.training else 1, side, side), args.training)
        row = results.row(f'{name} {kind}', lambda name=name, side=side: measure(
            name, side, args.training, args.seconds))
        line(name, kind, round(row['float32']), round(row['bfloat16']), row['bfloat16'] / row['float32'],
             row['difference'])


if __name__ == '__main__':
    main()
