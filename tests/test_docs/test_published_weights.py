"""The page of published weights, held against the metafiles."""
import re

import pytest
import yaml
from repository import ROOT

PAGE = (ROOT / 'docs/published_weights.md').read_text(encoding='utf-8')
MODELS = {model['Config']: model for path in sorted(ROOT.glob('configs/*/metafile.yml'))
          for model in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']}
ROWS = [[cell.strip() for cell in line.strip('| ').split(' | ')] for line in PAGE.splitlines()
        if line.startswith('| ') and '../configs/' in line]
METRICS = {'top-1': 'Top 1 Accuracy', 'box AP': 'box AP', 'mask AP': 'mask AP', 'mIoU': 'mIoU'}


def config_of(row):
    return re.search(r'\(\.\./(configs/[^)]+)\)', row[1])[1]


def test_rows_of_every_family():
    families = {config_of(row).split('/')[1] for row in ROWS}
    assert families == {'hornet', 'slak', 'kernel_warehouse', 'parc', 'transcnn'} and len(ROWS) > 60


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0])
def test_figures_are_those_of_the_metafile(row):
    model = MODELS[config_of(row)]
    known = {key: value for result in model.get('Results', ()) for key, value in result['Metrics'].items()}
    for said, key in METRICS.items():
        if match := re.search(rf'\b{said} (\d+\.\d+)', row[2]):
            assert known.get(key) == float(match[1]), f'{said} of {row[0]}: {known}'
    if match := re.match(r'(\d+\.\d+M), ', row[2]):
        assert model['Metadata'].get('Published Parameters') == match[1]


def test_weights_of_the_metafiles_are_on_the_page():
    """Direct addresses alone, in the first row of each config; what is not converted whole has none."""
    direct = {}
    for row in ROWS:
        files = re.findall(r'\[file\]\(([^)]+)\)', ' '.join(row[3:]))
        if files and 'encoder alone' not in row[0]:
            direct.setdefault(config_of(row), files[-1])
    assert direct == {config: model['Weights'] for config, model in MODELS.items() if 'Weights' in model}
    assert not [address for address in direct.values() if 'drive.google' in address or 'baidu' in address]
