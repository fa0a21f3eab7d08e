"""Which of mmcv's operators are in use, and what the user is told about it."""
import importlib
import importlib.util
import subprocess
import sys
import types

import pytest

from plugconv_mm.compat import bridge, mmcv_ops

pytest.importorskip('mmengine', reason='the bridge reports through its logger')


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A stand-in for an installed mmcv; called with the source of its ``_ext``, it imports that."""
    package = types.ModuleType('mmcv')
    package.__path__ = [str(tmp_path)]
    package.__spec__ = importlib.util.spec_from_loader('mmcv', loader=None)
    monkeypatch.setitem(sys.modules, 'mmcv', package)
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    monkeypatch.delenv('PLUGCONV_MMCV_OPS', raising=False)
    messages = []
    monkeypatch.setattr(bridge, '_log', lambda message, level=0: messages.append(message))

    def load(compiled=None):
        if compiled is not None:
            (tmp_path / '_ext.py').write_text(compiled)
        importlib.invalidate_caches()
        bridge.install()
        return importlib.import_module('mmcv._ext'), messages

    yield load
    sys.modules.pop('mmcv._ext', None)


COMPILED = 'nms = "compiled"'
STALE = 'raise ImportError("_ext.so: undefined symbol: _ZNK3c10")'


def test_absent(installed):
    module, messages = installed()
    assert module is mmcv_ops and bridge.in_use() == 'torchvision'
    assert messages == ["mmcv operators: torchvision's, for those that detection needs (mmcv was installed without "
                        'them).']
    assert importlib.util.find_spec('mmcv._ext') is not None  # how mmcv.utils.ext_loader looks for them


def test_compiled(installed):
    module, messages = installed(COMPILED)
    assert module.nms == 'compiled' and bridge.in_use() == 'mmcv'
    assert messages == ["mmcv operators: mmcv's compiled ones."]


def test_stale(installed):
    module, messages = installed(STALE)
    assert module is mmcv_ops and len(messages) == 1 and 'undefined symbol: _ZNK3c10' in messages[0]


def test_forced_torchvision(installed, monkeypatch):
    monkeypatch.setenv('PLUGCONV_MMCV_OPS', 'torchvision')
    module, messages = installed(COMPILED)
    assert module is mmcv_ops and 'PLUGCONV_MMCV_OPS=torchvision' in messages[0]


def test_forced_mmcv(installed, monkeypatch):
    monkeypatch.setenv('PLUGCONV_MMCV_OPS', 'mmcv')
    assert installed(COMPILED)[0].nms == 'compiled'


@pytest.mark.parametrize('compiled, reason', [(None, 'installed without them'), (STALE, 'undefined symbol: _ZNK3c10')])
def test_forced_mmcv_that_cannot_be_had(installed, monkeypatch, compiled, reason):
    monkeypatch.setenv('PLUGCONV_MMCV_OPS', 'mmcv')
    with pytest.raises(RuntimeError, match=rf'(?s){reason}.*make mmcv.*unset PLUGCONV_MMCV_OPS'):
        installed(compiled)


def test_forced_mmcv_without_mmcv(monkeypatch):
    monkeypatch.setenv('PLUGCONV_MMCV_OPS', 'mmcv')
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    with pytest.raises(RuntimeError, match='mmcv is not installed. Install it with `pip install'):
        bridge.install()


def test_forced_torchvision_too_late(installed, monkeypatch):
    installed(COMPILED)
    monkeypatch.setenv('PLUGCONV_MMCV_OPS', 'torchvision')
    with pytest.raises(RuntimeError, match='import plugconv_mm before mmcv.ops'):
        bridge.install()


def test_what_is_loaded_stays(installed):
    module, _ = installed(COMPILED)
    bridge.install()
    assert sys.modules['mmcv._ext'] is module
    assert sum(isinstance(finder, bridge._OperatorsFinder) for finder in sys.meta_path) == 1


def test_unknown_choice(monkeypatch):
    monkeypatch.setenv('PLUGCONV_MMCV_OPS', 'cuda')
    with pytest.raises(ValueError, match="one of auto, torchvision, mmcv, got 'cuda'"):
        bridge.install()


def test_without_torchvision(installed, monkeypatch):
    monkeypatch.delitem(sys.modules, 'plugconv_mm.compat.mmcv_ops')
    monkeypatch.delattr('plugconv_mm.compat.mmcv_ops')
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(ImportError, match='torchvision, which would stand in for them, does not import'):
        installed()


@pytest.mark.slow
def test_fresh_interpreter():
    """mmcv.ops imports whole, also after an attempt that failed, and one line says what stands in."""
    pytest.importorskip('mmcv')
    code = ('try: import mmcv.ops\n'
            'except ImportError: pass\n'
            'import plugconv_mm, mmcv.ops\n'
            'from mmcv.utils.ext_loader import check_ops_exist\n'
            'from plugconv_mm.compat import bridge\n'
            'assert check_ops_exist()\n'
            'print(mmcv.ops.get_compiler_version(), mmcv.ops.get_compiling_cuda_version(), bridge.in_use(), sep="/")')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    operators = done.stdout.splitlines()[-1].split('/')[-1]
    assert operators in ('mmcv', 'torchvision')
    assert (done.stdout + done.stderr).count('mmcv operators: ') == (operators == 'torchvision')
