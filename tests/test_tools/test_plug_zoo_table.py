"""The tables of what was plugged into existing models."""
import pytest

for name in ('mmdet', 'mmseg', 'timm', 'torchvision'):
    pytest.importorskip(name)

from repository import tool  # noqa: E402

CASE = '<testcase classname="tests.test_plugging.{0}" name="test_it[{1}]"><properties>{2}</properties>{3}</testcase>'
PROPERTY = '<property name="{0}" value="{1}" />'


def results(*cases):
    return f'<testsuites><testsuite>{"".join(CASE.format(*case) for case in cases)}</testsuite></testsuites>'


def properties(*pairs):
    return ''.join(PROPERTY.format(*pair) for pair in pairs)


def test_tables_of_results(tmp_path):
    script = tool('misc/plug_zoo_table')
    ours = properties(('class', 'ATSS'), ('ParCHW2d', 4), ('KWConv2d, shared', 2), ('unused', 'KWConv2d, shared: a, b'),
                      ('skipped', 'ParCHW2d: neck.conv: too small: got 1'), ('skipped', 'KWConv2d: x: width of 3'))
    (tmp_path / 'a.xml').write_text(results(
        ('test_mmdet_zoo', 'atss/atss_r50', '', '<failure message="E: 1&#10;2" />')))
    (tmp_path / 'b.xml').write_text(results(
        ('test_mmdet_zoo', 'atss/atss_r50', ours, ''),
        ('test_existing_models', 'timm-res-net', properties(('skipped', 'KWConv2d: y: width of 4')),
         '<failure message="Error: other outputs&#10;assert False" />')))
    text = script.tables(script.read([tmp_path / 'a.xml', tmp_path / 'b.xml']))
    assert '1 of 2 pass, with torch ' in text
    assert '| mmdet | atss/atss_r50 | ATSS | 4 | – | – | 2 | – | – | – | – | 2 | 2 | ok |' in text
    assert '| timm | res-net |  | – | – | – | – | – | – | – | – | 1 | – | failure: Error: other outputs |' in text
    assert text.endswith('| width of n | 2 |\n| too small | 1 |\n')
