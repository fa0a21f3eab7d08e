"""Build mini data sets in the layouts of COCO 2017, ADE20K, VOC 2007 + 2012 and ImageNet; nothing is downloaded.

With them in place of ``data``, every config for these data sets runs as written.
"""
import argparse
import sys
import time
from collections.abc import Sequence

from plugconv_mm.datasets import build_mini
from plugconv_mm.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/mini', help='the folder to build (default: %(default)s)')
    args = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        counts = build_mini(args.out)
    except UserError as error:
        sys.exit(f'make_mini_datasets.py: error: {error}')
    except OSError as error:
        sys.exit(f'make_mini_datasets.py: error: cannot write {args.out}: {error}')
    images = ', '.join(f'{name} {count}' for name, count in counts.items())
    print(f'{args.out}: images of {images} ({time.perf_counter() - start:.1f} s)')


if __name__ == '__main__':
    main()
