"""The walk over a config, and the map of its values."""
import pytest

pytest.importorskip('mmengine')

from mmengine.config import ConfigDict  # noqa: E402

from plugconv_mm.runtime.config_tree import map_values, type_name, walk  # noqa: E402

TREE = ConfigDict(a=dict(b=[dict(c=1), (dict(d=2), 3)]), e='x')


def test_walk_names_places():
    assert [(path, sorted(node)) for path, node in walk(TREE)] == [
        ('', ['a', 'e']), ('a', ['b']), ('a.b.0', ['c']), ('a.b.1.0', ['d'])]
    assert [path for path, _ in walk(TREE.a, 'cfg.a')] == ['cfg.a', 'cfg.a.b.0', 'cfg.a.b.1.0']
    assert list(walk(None)) == list(walk('text')) == []


def test_walk_goes_on_into_what_was_changed():
    tree = dict(a=dict(gone=dict()))
    seen = []
    for path, node in walk(tree):
        seen.append(path)
        if path == 'a':
            node['new'] = dict()
            del node['gone']
    assert seen == ['', 'a', 'a.new']


def test_map_copies_and_keeps_kinds():
    mapped = map_values(lambda value: value * 2, TREE)
    assert mapped == dict(a=dict(b=[dict(c=2), (dict(d=4), 6)]), e='xx') and type(mapped.a) is ConfigDict
    assert TREE.a.b[0].c == 1 and isinstance(mapped.a.b[1], tuple)


def test_names_of_types():
    assert type_name('mmdet.ResNet') == type_name('ResNet') == 'ResNet'
    assert type_name(ConfigDict) == 'ConfigDict'
