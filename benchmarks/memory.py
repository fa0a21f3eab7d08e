"""Peak memory of backbones beside the papers' own formulation, in evaluation and in a training step.

    python -m benchmarks.memory [--families slak hornet-gf ...] [--side 512]

Megabytes of tensors above the weights and the image; buffers inside oneDNN and MKL are not counted. The network is
called once before it is measured, so that what it keeps for the size of the image is not counted as its peak.
"""
import torch

from benchmarks.backbones import CASES, build, described, gradients
from benchmarks.results import Results, header, line, make_parser
from plugconv_mm.analysis.memory import watched


def measure(name: str, side: int, training: bool) -> dict[str, float]:
    """Peaks of both formulations, in bytes."""
    model, reference = build(CASES[name])
    image = torch.randn(2 if training else 1, 3, side, side)
    peaks = {}
    for kind, network in dict(published=reference, ours=model).items():
        network.train(training)
        parameters = [p for p in model.parameters() if p.requires_grad]

        def call(network: torch.nn.Module = network, parameters: list = parameters) -> object:
            with torch.inference_mode(not training):
                return gradients(network, image, parameters) if training else network(image)

        call()
        with watched() as memory:
            call()
        peaks[kind] = memory.peak
    return peaks


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'memory')
    parser.add_argument('--families', nargs='+', choices=CASES, default=list(CASES), metavar='NAME')
    parser.add_argument('--side', type=int, default=512, help='height and width of the images, in pixels')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('network', 'input', 'published, MB', 'ours, MB', 'ratio')
    for name in args.families:
        side = CASES[name].nearest(args.side)
        for training in (False, True):
            if training and CASES[name].deploy:
                continue
            kind = described((2 if training else 1, side, side), training)
            row = results.row(f'{name} {kind}',
                              lambda name=name, side=side, training=training: measure(name, side, training))
            line(name, kind, round(row['published'] / 2**20), round(row['ours'] / 2**20),
                 row['ours'] / row['published'])


if __name__ == '__main__':
    main()
