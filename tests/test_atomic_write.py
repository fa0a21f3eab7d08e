"""Files and folders are the old or the whole new one."""
import errno
import os

import pytest

from plugconv_mm.atomic_write import atomic_folder, atomic_write
from plugconv_mm.errors import OutputError, OutputFolderNotFoundError, UserError


def write(path, content=b'new'):
    with atomic_write(path) as file:
        file.write(content)


def names(folder):
    return sorted(os.listdir(folder))


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / 'x'
    for content in (b'one', b'two'):
        write(path, content)
        assert path.read_bytes() == content
    with atomic_write(path) as file:
        file.write(b'three')
        assert path.read_bytes() == b'two'
    assert names(tmp_path) == ['x']


@pytest.mark.parametrize('error', [RuntimeError('broken'), KeyboardInterrupt(), FileNotFoundError(2, 'no', 'other')])
def test_an_error_on_the_way_leaves_the_old_file(tmp_path, error):
    write(tmp_path / 'x', b'old')
    with pytest.raises(type(error)) as raised, atomic_write(tmp_path / 'x') as file:
        file.write(b'half')
        raise error
    assert raised.value is error  # which is about something else than this file
    assert (tmp_path / 'x').read_bytes() == b'old' and names(tmp_path) == ['x']


@pytest.mark.parametrize('nested', [False, True])
def test_a_failing_write_says_what_is_there(tmp_path, nested):
    """torch.save raises its own error while it handles the system's."""
    write(tmp_path / 'x', b'old')
    with pytest.raises(OutputError, match='No space left.*; x was not written, what was there stays') as raised:
        with atomic_write(tmp_path / 'x'):
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                if nested:
                    raise RuntimeError('unexpected pos 64 vs 0')  # noqa: B904
                raise
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / 'x')
    assert (tmp_path / 'x').read_bytes() == b'old' and names(tmp_path) == ['x']


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputFolderNotFoundError, match='there is no folder .*nowhere to write x into: make it first'):
        write(tmp_path / 'nowhere/x')
    with pytest.raises(OutputError, match='is a folder: name a file to write'):
        write(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize('kind', [UserError, OSError, ValueError])
def test_kinds_of_the_errors(kind):
    assert issubclass(OutputError, kind) and issubclass(OutputFolderNotFoundError, (kind, FileNotFoundError))


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    for content in ('one', 'two'):
        with atomic_folder(tmp_path / 'a/b') as folder:
            (folder / content).write_text(content)
        assert names(tmp_path / 'a/b') == [content]
    assert names(tmp_path / 'a') == ['b']


def test_an_error_on_the_way_leaves_the_old_folder(tmp_path):
    with atomic_folder(tmp_path / 'b') as folder:
        (folder / 'old').write_text('old')
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / 'b') as folder:
        (folder / 'half').write_text('half')
        raise KeyboardInterrupt
    assert names(tmp_path / 'b') == ['old'] and names(tmp_path) == ['b']


def test_leftovers_of_a_killed_process_go(tmp_path):
    killed = tmp_path / '.b.building-99999999'  # no process has this number
    alive = tmp_path / f'.b.building-{os.getppid()}'
    killed.mkdir()
    alive.mkdir()
    with atomic_folder(tmp_path / 'b'):
        pass
    assert names(tmp_path) == [alive.name, 'b']


def test_folders_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('content')
    with pytest.raises(OutputError, match='file is a file: name a folder'), atomic_folder(tmp_path / 'file'):
        pytest.fail('there is nothing to write into')
    with pytest.raises(OutputError, match='b cannot be made there'), atomic_folder(tmp_path / 'file/b'):
        pytest.fail('there is nothing to write into')
    assert (tmp_path / 'file').read_text() == 'content'
