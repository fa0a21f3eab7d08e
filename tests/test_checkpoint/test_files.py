"""Checkpoint files: nothing runs that they ask for, and a good file is never replaced by half a file."""
import argparse
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from code_in_files import Mkdir

from plugconv_mm.checkpoint import load_from_local, read_checkpoint, write_checkpoint


def state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {'a.weight': torch.rand(300, 40, generator=generator), 'a.steps': torch.tensor(7)}


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors', 'without_suffix'])
def test_round_trip(tmp_path, name):
    write_checkpoint(state(), tmp_path / name)
    assert_same(read_checkpoint(tmp_path / name), state())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert oct((tmp_path / name).stat().st_mode)[-3:] == oct(0o666 & ~current_umask())[-3:]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_safetensors_takes_shared_and_transposed_tensors(tmp_path):
    whole = torch.rand(4, 6)
    tied = {'a': whole, 'b': whole, 'c': whole.t(), 'd': whole[:2], 'e': torch.nn.Parameter(whole)}
    write_checkpoint(tied, tmp_path / 'x.safetensors')
    assert_same(read_checkpoint(tmp_path / 'x.safetensors'), tied)


def test_safetensors_takes_tensors_only(tmp_path):
    with pytest.raises(ValueError, match="these are none: 'epoch'"):
        write_checkpoint({'w': torch.zeros(1), 'epoch': 3}, tmp_path / 'x.safetensors')
    assert not list(tmp_path.iterdir())


def test_what_published_checkpoints_hold_beside_tensors(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'model': state(), 'args': argparse.Namespace(lr=0.1, output=Path('/out')), 'epoch': 3,
                'best': np.float64(0.5), 'counts': np.arange(3, dtype=np.int32), 'flag': np.bool_(True)}, path)
    read = read_checkpoint(path)
    assert read['args'].lr == 0.1 and read['best'] == 0.5 and read['counts'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_that_wants_to_run_code_is_refused(tmp_path, zipped):
    torch.save({'state_dict': state(), 'meta': Mkdir(tmp_path / 'made')}, tmp_path / 'x.pth',
               _use_new_zipfile_serialization=zipped)
    for read in (read_checkpoint, load_from_local):
        with pytest.raises(ValueError, match=r"refused to load .*x\.pth.*'posix\.mkdir'.*weights_only=False"):
            read(str(tmp_path / 'x.pth'))
    assert not (tmp_path / 'made').exists()


class Reaches:

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


def test_getattr_reaches_nothing_but_log_statistics(tmp_path):
    history = pytest.importorskip('mmengine.logging').HistoryBuffer
    torch.save({'a': Reaches(history, 'mean')}, tmp_path / 'good.pth')
    assert read_checkpoint(tmp_path / 'good.pth')['a'] is history.mean
    for number, arguments in enumerate(((history, '__init__'), (torch.Tensor, 'mean'), (argparse.Namespace, 'mean'))):
        torch.save({'a': Reaches(*arguments)}, tmp_path / f'{number}.pth')
        with pytest.raises(ValueError, match='refused to load'):
            read_checkpoint(tmp_path / f'{number}.pth')


@pytest.mark.parametrize('name', ['x.pth', 'legacy.pth', 'x.safetensors'])
@pytest.mark.parametrize('kept', [0.0, 0.003, 0.5, 0.98])
def test_truncated(tmp_path, name, kept):
    path = tmp_path / name
    if name == 'legacy.pth':
        torch.save(state(), path, _use_new_zipfile_serialization=False)
    else:
        write_checkpoint(state(), path)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * kept)])
    with pytest.raises(ValueError, match=f'{name} .*(truncated|is empty)'):
        read_checkpoint(path)


@pytest.mark.parametrize('content, message', [
    (b'hello, this is some text\n' * 9, 'is not a checkpoint'),
    (bytes(range(256)) * 9, 'is not a checkpoint'),
    (b'<!DOCTYPE html><html>404</html>', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git lfs pull'),
])
def test_not_a_checkpoint(tmp_path, content, message):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / 'x.pth')


def test_other_things_in_the_right_wrapping(tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='holds one list'):
        read_checkpoint(tmp_path / 'list.pth')
    np.savez(tmp_path / 'x.npz', a=np.zeros(3))
    with pytest.raises(ValueError, match='is not a checkpoint'):
        read_checkpoint(tmp_path / 'x.npz')
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps({'a': 1}, protocol=4))
    with pytest.raises(ValueError, match='x.pkl'):
        read_checkpoint(tmp_path / 'x.pkl')


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no checkpoint .*nowhere.pth'):
        read_checkpoint(tmp_path / 'nowhere.pth')
    with pytest.raises(ValueError, match='is a folder'):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no folder .*nowhere'):
        write_checkpoint(state(), tmp_path / 'nowhere' / 'x.pth')
    with pytest.raises(ValueError, match='is a folder'):
        write_checkpoint(state(), tmp_path)


def test_writing_replaces_and_follows_links(tmp_path):
    write_checkpoint(state(0), tmp_path / 'real.pth')
    (tmp_path / 'link.pth').symlink_to('real.pth')
    write_checkpoint(state(1), tmp_path / 'link.pth')
    assert (tmp_path / 'link.pth').is_symlink()
    assert_same(read_checkpoint(tmp_path / 'real.pth'), state(1))


@pytest.fixture
def full_disk():
    """Lets no file grow beyond 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk, name):
    write_checkpoint(state(), tmp_path / name)
    with pytest.raises(OSError, match='File too large; .* was not written'):
        write_checkpoint({'b': torch.rand(1000, 1000)}, tmp_path / name)
    assert_same(read_checkpoint(tmp_path / name), state())
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    write_checkpoint(state(), tmp_path / 'x.pth')

    def interrupted(checkpoint, file):
        file.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(state(1), tmp_path / 'x.pth')
    assert_same(read_checkpoint(tmp_path / 'x.pth'), state())
    assert [p.name for p in tmp_path.iterdir()] == ['x.pth']
