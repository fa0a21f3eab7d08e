"""Fold the large kernels of a trained SLaK into their deployment form.

    python tools/model_converters/switch_to_deploy.py SRC DST

SRC is a checkpoint of tools/train.py, or a published one, of the backbone alone or of a whole model: a file of
torch.save (.pth, .pt, ...) or .safetensors. DST holds the deployed state dict and, unless it is .safetensors, the
checkpoint's meta; it replaces an older file only once it is complete. It loads into a model whose SLaK is built with
deploy=True. In each block, large_kernel.{vertical,horizontal}.{weight,bias} take the place of
large_kernel.{vertical,horizontal,small_conv}.{conv,bn}.*, and large_kernel.large_conv.{weight,bias} that of
large_kernel.{large_conv,small_conv}.{conv,bn}.*; all other names stay. Checkpoints of other networks, and
deployed ones, come out as they were.
"""
import argparse
import sys
from collections.abc import Mapping

from plugconv_mm.checkpoint import load_from_local, state_dict_of, write_checkpoint
from plugconv_mm.errors import UserError
from plugconv_mm.ops import deploy_state_dict


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint of the training form')
    parser.add_argument('dst', help='file to write')
    parser.add_argument('--eps', type=float, default=1e-5,
                        help='eps of the batch norms, where the norm_cfg of SLaK sets another than %(default)s')
    args = parser.parse_args()
    try:
        checkpoint = load_from_local(args.src, 'cpu')
        state = state_dict_of(checkpoint)
        deployed = deploy_state_dict(state, args.eps)
        meta = checkpoint.get('meta')
        whole = isinstance(meta, Mapping) and not args.dst.endswith('.safetensors')
        write_checkpoint({'state_dict': deployed, 'meta': meta} if whole else deployed, args.dst)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    folded = sum(key.endswith(('vertical.weight', 'large_conv.weight')) for key in deployed.keys() - state.keys())
    print(f'{folded} large kernels folded, {len(state)} tensors before and {len(deployed)} after\n'
          f'written to {args.dst}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
