"""Build the digits with a mark far away (see plugconv_mm/datasets/distant_cue.py; nothing is downloaded)."""
import argparse
import sys

from plugconv_mm.datasets import build_distant_cue
from plugconv_mm.errors import UserError


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/distant_cue', help='the folder to build')
    parser.add_argument('--num-train', type=int, default=800, help='training images')
    parser.add_argument('--num-val', type=int, default=160, help='validation images')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    args = parser.parse_args(argv)
    try:
        build_distant_cue(**vars(args))
    except UserError as error:
        sys.exit(f'distant_cue.py: error: {error}')
    except OSError as error:
        sys.exit(f'distant_cue.py: error: cannot write {args.out}: {error}')
    print(f'{args.out}: {args.num_train} training and {args.num_val} validation images, seed {args.seed}')


if __name__ == '__main__':
    main()
