"""Build the handwritten digits on photographs (COCO and ADE20K layout, nothing is downloaded)."""
import argparse
import sys
import time

from plugconv_mm.datasets import build_digits
from plugconv_mm.errors import UserError


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/digits', help='the folder to build')
    parser.add_argument('--num-train', type=int, default=400, help='training images')
    parser.add_argument('--num-val', type=int, default=80, help='validation images')
    parser.add_argument('--sizes', type=int, nargs=2, default=(160, 192), metavar=('MIN', 'MAX'),
                        help='shortest and longest side of an image, in pixels')
    parser.add_argument('--digit-sizes', type=int, nargs=2, default=(24, 64), metavar=('MIN', 'MAX'),
                        help='smallest and largest digit, in pixels')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    parser.add_argument('--force', action='store_true', help='replace a complete set built with other settings')
    args = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        manifest = build_digits(**vars(args))
    except UserError as error:
        sys.exit(f'digits.py: error: {error}')
    except OSError as error:
        sys.exit(f'digits.py: error: cannot write {args.out}: {error}')
    settings = manifest['settings']
    print(f'{args.out}: {settings["num_train"]} training and {settings["num_val"]} validation images, seed '
          f'{settings["seed"]} ({time.perf_counter() - start:.1f} s)')


if __name__ == '__main__':
    main()
