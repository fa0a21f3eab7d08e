"""Plot density, overlap with the first mask, and turnover of a training with DynamicSparsityHook, per group of layers.

    python tools/analysis_tools/plot_sparsity.py work_dirs/my_training
    python tools/analysis_tools/plot_sparsity.py work_dirs/my_training/epoch_*.pth --out sparsity.png
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from plugconv_mm.errors import UserError
from plugconv_mm.visualization import plot_sparsity


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', nargs='+', help='a work dir, whose log is read, or checkpoints of one training')
    parser.add_argument('--out', help='the .png file (default: sparsity.png in the work dir or beside the checkpoints)')
    args = parser.parse_args(argv)
    folder = Path(args.source[0])
    source = args.source
    if folder.is_dir() and len(source) == 1:
        source = folder
    else:
        folder = folder.parent
    out = args.out or folder / 'sparsity.png'
    try:
        plot_sparsity(out, source)
    except UserError as error:
        sys.exit(f'plot_sparsity.py: error: {error}')
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
