"""Write the tables of docs/plugged_models.md, of the results that the tests of existing models leave.

    python -m pytest -m 'slow or not slow' tests/test_plugging/test_existing_models.py \\
        tests/test_plugging/test_mm*_zoo.py -o junit_family=xunit1 --junitxml=work_dirs/plugged.xml
    python tools/misc/plug_zoo_table.py work_dirs/plugged.xml
"""
import argparse
import importlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

PAGE = Path(__file__).parents[2] / 'docs/plugged_models.md'
LIBRARIES = ('mmdet', 'mmseg', 'timm', 'torchvision')
OPERATORS = ('ParCHW2d', 'GnConv2d', 'KWConv2d', 'KWConv2d, shared', 'GlobalLocalFilter', 'LargeKernelConv2d',
             'DecomposedLargeKernelConv2d', 'ParCMixer')


@dataclass
class Network:
    """What the test of one network says.

    Attributes:
        library: Where it is from.
        name: Its config or its architecture.
        kind: Its class.
        layers: Layers that were plugged, by operator.
        skipped: Why others were not.
        unused: Layers that were plugged and that the loss does not depend on.
        failure: The first line of what went wrong; empty where nothing did.
    """
    library: str
    name: str
    kind: str = ''
    layers: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    unused: int = 0
    failure: str = ''


def read(files: Iterable[str | Path]) -> list[Network]:
    """Read results of pytest; of those of one network in several files, the last counts."""
    found = {}
    for case in (case for file in files for case in ElementTree.parse(file).getroot().iter('testcase')):
        file, (name, ) = case.attrib['classname'], re.findall(r'\[(.*)]', case.attrib['name'])
        library = next((lib for lib in LIBRARIES if f'test_{lib}_zoo' in file), name.partition('-')[0])
        network = Network(library, name.removeprefix(f'{library}-'))
        for entry in case.iter('property'):
            key, value = entry.attrib['name'], entry.attrib['value']
            if key in OPERATORS:
                network.layers[key] += int(value)
            elif key == 'class':
                network.kind = value
            elif key == 'skipped':
                network.skipped.append(re.sub(r'\d+(?!d\b)', 'n', value.split(': ', 2)[2].split(': ')[0]))
            else:
                network.unused += value.partition(': ')[2].count(',') + 1
        for outcome in (*case.iter('failure'), *case.iter('error'), *case.iter('skipped')):
            network.failure = f'{outcome.tag}: {outcome.attrib["message"].splitlines()[0]}'
        found[library, name] = network
    return sorted(found.values(), key=lambda network: (LIBRARIES.index(network.library), network.name))


def tables(networks: Sequence[Network]) -> str:
    """The sections of the page."""
    versions = ', '.join(f'{name} {importlib.import_module(name).__version__}' for name in ('torch', *LIBRARIES))
    passed = sum(not network.failure for network in networks)
    lines = ['## Networks', '', f'{passed} of {len(networks)} pass, with {versions}.', '',
             _row('Library', 'Network', 'Class', *(f'`{name}`' for name in OPERATORS), 'Skipped', 'Unused', 'Result'),
             _row(*['---'] * (len(OPERATORS) + 6))]
    lines += [_row(network.library, network.name, network.kind, *(network.layers[name] or '–' for name in OPERATORS),
                   len(network.skipped) or '–', network.unused or '–',
                   network.failure.replace('|', '\\|') or 'ok') for network in networks]
    reasons = Counter(reason for network in networks for reason in network.skipped)
    lines += ['', '## Why layers were skipped', '', _row('Reason', 'Layers'), _row('---', '---')]
    lines += [_row(reason.replace('|', '\\|'), number) for reason, number in reasons.most_common()]
    return '\n'.join([*lines, ''])


def _row(*cells: object) -> str:
    return f'| {" | ".join(map(str, cells))} |'


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+', help="files of pytest's --junitxml, of which the last counts for a network")
    args = parser.parse_args(argv)
    text = PAGE.read_text(encoding='utf-8').partition('## Networks')[0]
    PAGE.write_text(text + tables(read(args.files)), encoding='utf-8')


if __name__ == '__main__':
    main()
