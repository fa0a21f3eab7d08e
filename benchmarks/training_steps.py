"""Where the time of a training step goes: the operators of each backbone, by PyTorch's profiler.

    python -m benchmarks.training_steps [--families parc-resnet slak ...] [--side 224] [--published]

Shares of the time in operators, forward and backward of two images, those of the papers' formulation with
``--published``. The steps themselves are timed side by side by ``python -m benchmarks.backbones --modes training``.
"""
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.backbones import CASES, build, gradients
from benchmarks.results import Results, header, line, make_parser

SHOWN = 6


def measure(name: str, side: int, published: bool) -> dict[str, float]:
    """Milliseconds in each operator itself, without those that it calls."""
    ours, reference = build(CASES[name])
    model = (reference if published else ours).train()
    parameters = [p for p in ours.parameters() if p.requires_grad]
    image = torch.randn(2, 3, side, side)
    gradients(model, image, parameters)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        gradients(model, image, parameters)
    return {event.key.removeprefix('aten::'): event.self_cpu_time_total / 1e3 for event in recorded.key_averages()
            if event.self_cpu_time_total}


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'training_steps')
    names = [name for name, case in CASES.items() if not case.deploy]
    parser.add_argument('--families', nargs='+', choices=names, default=names, metavar='NAME')
    parser.add_argument('--side', type=int, default=224, help='height and width of the images, in pixels')
    parser.add_argument('--published', action='store_true', help="the papers' formulation in place of ours")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('network', 'input', 'operators, ms', *(f'{n}.' for n in range(1, SHOWN + 1)))
    for name in args.families:
        side = CASES[name].nearest(args.side)
        kind = f'2×3×{side}×{side}{", published" if args.published else ""}'
        row = results.row(f'{name} {kind}', lambda name=name, side=side: measure(name, side, args.published))
        total = sum(row.values())
        largest = sorted(row.items(), key=lambda item: -item[1])[:SHOWN]
        line(name, kind, round(total), *(f'{operator} {time / total:.0%}' for operator, time in largest))


if __name__ == '__main__':
    main()
