"""Convert a published checkpoint into one of PlugConv-MM.

    python tools/model_converters/convert_official.py SRC DST [--classifier]

SRC and DST are files of torch.save (.pth, .pt, ...) or .safetensors; SRC may also be an address (http://, https://, or
hf://OWNER/NAME/FILE of the Hugging Face Hub), which is downloaded once. SRC may be a classification checkpoint or a
whole detector or segmentor; SRC#ENTRY takes the weights under this entry of it, such as averaged ones under model_ema.
DST holds the bare state dict, and replaces an older file only once it is complete. Of a classification checkpoint, it
holds the backbone alone, or, with --classifier, the whole classifier under the names of mmpretrain's ImageClassifier,
which the configs that end in _in1k.py take.
"""
import argparse
import sys

from plugconv_mm.checkpoint import convert_with_report, write_checkpoint
from plugconv_mm.checkpoint.download import read_address
from plugconv_mm.checkpoint.state_dict import split_entry
from plugconv_mm.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='published checkpoint, or its address')
    parser.add_argument('dst', help='file to write')
    parser.add_argument('--classifier', action='store_true', help='keep the classifier beside the backbone')
    args = parser.parse_args()
    try:
        file, entry = split_entry(args.src)
        state, report = convert_with_report(read_address(file), entry, args.classifier)
        write_checkpoint(state, args.dst)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{report}\nwritten to {args.dst}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
