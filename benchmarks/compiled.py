"""torch.compile beside eager PyTorch, in inference and training, and what an image of another size costs.

    python -m benchmarks.compiled [--families slak hornet-gf ...] [--side 256] [--dynamic] [--training]

``--dynamic`` compiles for images of any size; otherwise torch compiles anew for the second size, and for any size from
then on. Compilation takes minutes for a network.
"""
import time

import torch

from benchmarks.backbones import CASES, build, described, difference, gradients
from benchmarks.median_times import median_times
from benchmarks.results import Results, header, line, make_parser


def measure(name: str, side: int, training: bool, dynamic: bool, seconds: float) -> dict[str, float]:
    """Milliseconds of both, seconds of the first calls at two sizes, and the difference of outputs or gradients."""
    torch._dynamo.reset()
    model, _ = build(CASES[name])
    model.train(training)
    compiled = torch.compile(model, dynamic=True if dynamic else None)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def call(network: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
        if training:
            return gradients(network, image, parameters)
        with torch.inference_mode():
            return list(network(image))

    image = torch.randn(2 if training else 1, 3, side, side)
    begin = time.perf_counter()
    call(compiled, image)
    first = time.perf_counter() - begin
    times = median_times({'eager': lambda: call(model, image), 'compiled': lambda: call(compiled, image)}, seconds,
                         rounds=3, warm_ups=1)
    diff = difference(call(compiled, image), call(model, image))
    other = torch.randn(len(image), 3, side + 32, side + 96)
    begin = time.perf_counter()
    call(compiled, other)
    return {**times, 'first': first, 'second': time.perf_counter() - begin, 'difference': diff,
            'second difference': difference(call(compiled, other), call(model, other))}


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'compiled')
    parser.add_argument('--families', nargs='+', choices=CASES, default=list(CASES), metavar='NAME')
    parser.add_argument('--side', type=int, default=256, help='height and width of the images, in pixels')
    parser.add_argument('--training', action='store_true', help='forward and backward of two images')
    parser.add_argument('--dynamic', action='store_true', help='compile for images of any size')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('network', 'input', 'eager, ms', 'compiled, ms', 'ratio', 'first call, s', 'another size, s', 'difference')
    for name in args.families:
        side = CASES[name].nearest(args.side)
        kind = described((2 if args.training else 1, side, side), args.training)
        if args.dynamic:
            kind += ', any size'
        row = results.row(f'{name} {kind}', lambda name=name, side=side: measure(
            name, side, args.training, args.dynamic, args.seconds))
        line(name, kind, round(row['eager']), round(row['compiled']), row['compiled'] / row['eager'],
             round(row['first']), round(row['second']), max(row['difference'], row['second difference']))


if __name__ == '__main__':
    main()
