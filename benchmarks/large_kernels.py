"""The forms of large kernels beside the convolution, in turns.

    python -m benchmarks.large_kernels [--maps 14 56 ...] [--batches 1 16] [--dtypes float32] [--forms banded fft] \\
        [--whole] [--device cuda]

Kernels and channels are those of SLaK-T where its maps of 224 pixels are as large; larger maps have the kernel and a
quarter or more of the channels of its first stage. Forms that do not work on the device have no time. Ratios are times
relative to that of 'conv': below one a form is faster.
"""
import torch

from benchmarks.median_times import median_times
from benchmarks.results import Results, header, line, make_parser
from plugconv_mm.ops import DecomposedLargeKernelConv2d, LargeKernelConv2d
from plugconv_mm.ops.mechanisms.thin_kernels.forms import FORMS

# Side of the map: the kernel's length and the channels.
CASES = {14: (47, 499), 28: (49, 249), 56: (51, 124), 112: (51, 62), 168: (51, 31), 224: (51, 31), 336: (51, 31)}


def measure(kind: type, side: int, batch: int, dtype: torch.dtype, training: bool, forms: list[str], device: str,
            seconds: float) -> dict[str, float]:
    """Milliseconds by form; without those that raise an error."""
    kernel_size, channels = CASES[side]
    layer = kind(channels, kernel_size).to(device, dtype).train(training)
    x = torch.randn(batch, channels, side, side, device=device, dtype=dtype).contiguous(
        memory_format=torch.channels_last)

    def call(form: str) -> None:
        layer.form = form
        if training:
            given = x.detach().requires_grad_()
            y = layer(given)
            torch.autograd.grad(y, [given, *layer.parameters()], torch.ones_like(y))
        else:
            with torch.inference_mode():
                layer(x)

    working = {}
    for form in forms:
        try:
            call(form)
        except (RuntimeError, ValueError, ImportError) as error:
            print(f'{form}: {error}', flush=True)
            continue
        working[form] = lambda form=form: call(form)
    return median_times(working, seconds, rounds=3, device=device, warm_ups=1)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'large_kernels')
    parser.add_argument('--maps', nargs='+', type=int, choices=CASES, default=list(CASES), metavar='SIDE')
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 2, 16])
    parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16', 'float16'])
    parser.add_argument('--forms', nargs='+', choices=[form for form in FORMS if form != 'conv'],
                        default=['banded', 'fft'])
    parser.add_argument('--whole', action='store_true', help='whole M×M kernels')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--limit', type=float, default=float('inf'), help='most multiply-adds of a row')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out, args.device)
    kind = LargeKernelConv2d if args.whole else DecomposedLargeKernelConv2d
    header('kernel', 'map', 'type', 'pass', 'conv, ms', *(f'{form}, ms' for form in args.forms),
           *(f'{form}, ratio' for form in args.forms))
    for side in args.maps:
        size, channels = CASES[side]
        kernel = f'{size}×{size}' if args.whole else f'{size}×5 + 5×{size}'
        for batch in args.batches:
            if batch * channels * side * side * size * (size if args.whole else 10) > args.limit:
                continue
            for dtype in args.dtypes:
                for training in (False, True):
                    kind_of_pass = 'training' if training else 'inference'
                    cells = kernel, f'{batch}×{channels}×{side}×{side}', dtype, kind_of_pass
                    row = results.row(
                        ' '.join((*cells, *args.forms)),
                        lambda side=side, batch=batch, dtype=dtype, training=training: measure(
                            kind, side, batch, getattr(torch, dtype), training, ['conv', *args.forms], args.device,
                            args.seconds))
                    times = [row.get(form, float('nan')) for form in ('conv', *args.forms)]
                    line(*cells, *times, *(t / times[0] for t in times[1:]))


if __name__ == '__main__':
    main()
