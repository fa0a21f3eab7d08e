"""Build the digits with a mark far away (see plugconv_mm/datasets/far_cue.py; nothing is downloaded)."""
import argparse
import sys

from plugconv_mm.datasets import DataError, build_far_cue


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/far_cue', help='the folder to build')
    parser.add_argument('--num-train', type=int, default=800, help='training pictures')
    parser.add_argument('--num-val', type=int, default=160, help='validation pictures')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    args = parser.parse_args(argv)
    try:
        build_far_cue(**vars(args))
    except (DataError, ValueError) as error:
        sys.exit(f'far_cue.py: error: {error}')
    except OSError as error:
        sys.exit(f'far_cue.py: error: cannot write {args.out}: {error}')
    print(f'{args.out}: {args.num_train} training and {args.num_val} validation pictures, seed {args.seed}')


if __name__ == '__main__':
    main()
