"""Measure the configs and bring configs/<family>/metafile.yml and README.md up to date.

What papers publish stands in the metafiles and is kept; parameters, multiply-adds, schedules and the tables are written
anew. A config without an entry gets one.
"""
import argparse
from collections.abc import Sequence
from pathlib import Path

from plugconv_mm.analysis import build_model, measure, padded_shape
from plugconv_mm.analysis.model_zoo import (
    FAMILIES,
    configs_of,
    describe,
    disagreements,
    image_size,
    name_of,
    read,
    with_tables,
    write,
)
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors

ROOT = Path(__file__).parents[2] / 'configs'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('families', nargs='*', metavar='FAMILY', help=f'of {", ".join(FAMILIES)} (default: all)')
    parser.add_argument('--tables', action='store_true', help='only write the tables, from the metafiles as they are')
    args = parser.parse_args(argv)
    if unknown := set(args.families) - set(FAMILIES):
        parser.error(f'there is no family {", ".join(sorted(unknown))}; choose of {", ".join(FAMILIES)}')
    return args


def update(metafile: Path) -> None:
    """Measure all configs of a family."""
    content = read(metafile)
    known = {model['Name']: model for model in content.get('Models') or ()}
    content['Models'] = []
    for path in configs_of(metafile.parent):
        cfg = load_config(make_parser('', runs=False).parse_args([str(path)]))
        model = build_model(cfg)
        cost = measure(model, padded_shape(model, image_size(path.stem)))
        print(f'{path.stem}: {cost.total_params / 1e6:.2f}M, {cost.total_macs() / 1e9:.4g}G', flush=True)
        before = known.get(name_of(path), {})
        collection = before.get('In Collection', content['Collections'][0]['Name'])
        content['Models'].append(describe(path, cfg, cost, collection, before))
    write(metafile, content)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('update_model_zoo.py'):
        for family in args.families or FAMILIES:
            metafile, readme = (ROOT / family / name for name in ('metafile.yml', 'README.md'))
            if not args.tables:
                update(metafile)
            models = read(metafile)['Models']
            write(readme, with_tables(readme.read_text(encoding='utf-8'), models))
            for disagreement in disagreements(models):
                print(disagreement)


if __name__ == '__main__':
    main()
