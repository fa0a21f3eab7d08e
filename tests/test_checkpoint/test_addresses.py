"""Weights by address: every scheme reads safely and converts, and torch.hub's cache holds good files only."""
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import types

import pytest
import torch
from code_in_files import Mkdir
from torch import nn

pytest.importorskip('mmengine')

from mmengine import dist, fileio, logging  # noqa: E402
from mmengine.model import BaseModule  # noqa: E402
from mmengine.runner import CheckpointLoader  # noqa: E402
from mmengine.runner import checkpoint as mmengine_checkpoint  # noqa: E402
from repository import ROOT  # noqa: E402

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.checkpoint import loaders, read_checkpoint  # noqa: E402
from plugconv_mm.errors import CheckpointError, CheckpointNotFoundError, MissingPackageError, OutputError  # noqa: E402

OURS = {'fpn_convs.0.conv.proj_in.weight': torch.rand(8, 4, 1, 1),
        'lateral_convs.0.conv.weight': torch.rand(4, 2, 1, 1)}
PUBLISHED = {key.replace('fpn_convs.0.conv.', 'fpn_convs.0.'): value for key, value in OURS.items()}


def saved(checkpoint):
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server():
    """Serves `server.files`, by path, and lists the paths that were asked for in `server.requests`."""

    class Handler(http.server.BaseHTTPRequestHandler):

        def do_GET(self):
            path = self.path.partition('?')[0]
            self.server.requests.append(path)
            content = self.server.files.get(path)
            if content is None:
                self.send_response(404)
                self.send_header('X-Error-Code', 'EntryNotFound')  # which the Hub says
                self.send_header('Content-Length', '0')
                return self.end_headers()
            self.send_response(200)
            self.send_header('Content-Length', str(len(content) + self.server.missing))
            for name, value in self.server.headers.get(path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.files, server.requests, server.missing, server.headers = {}, [], 0, {}
        server.url = f'http://127.0.0.1:{server.server_address[1]}'
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """torch.hub's folder of checkpoints."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    monkeypatch.setenv('no_proxy', '*')
    (tmp_path / 'mmengine').mkdir()
    return tmp_path / 'torch/hub/checkpoints'


def load(address):
    return CheckpointLoader.load_checkpoint(address, map_location='cpu', logger='silent')


def same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Neck(BaseModule):
    """Names of a HorFPN."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lateral_convs = nn.ModuleList([nn.ModuleDict({'conv': nn.Conv2d(2, 4, 1, bias=False)})])
        self.fpn_convs = nn.ModuleList([nn.ModuleDict({'conv': nn.ModuleDict({
            'proj_in': nn.Conv2d(4, 8, 1, bias=False)})})])


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: {'model': {f'module.{key}': value for key, value in state.items()}, 'epoch': 1},
], ids=['bare', 'wrapped'])
def test_a_published_file_stands_in_init_cfg(server, cache, wrap):
    server.files['/a/neck.pth'] = saved(wrap(PUBLISHED))
    for _ in range(2):
        neck = Neck(init_cfg=dict(type='Pretrained', checkpoint=f'{server.url}/a/neck.pth?download=1'))
        neck.init_weights()
        same(neck.state_dict(), OURS)
    assert server.requests == ['/a/neck.pth']  # once
    kept, = os.listdir(cache)
    assert re.fullmatch(r'neck_[0-9a-f]{8}\.pth', kept)


def test_two_files_of_one_name_are_two(server, cache):
    """Clouds name every file alike, or not at all."""
    addresses = [f'{server.url}{path}' for path in (
        '/s/a/download', '/s/b/download', '/f/c/?dl=1', '/f/d/?dl=1', '/x/model.pth', '/y/model.pth')]
    for number, address in enumerate(addresses):
        server.files[address.removeprefix(server.url).partition('?')[0]] = saved(
            {key: value + number for key, value in PUBLISHED.items()})
    for _ in range(2):
        for number, address in enumerate(addresses):
            same(load(address)['state_dict'], {key: value + number for key, value in OURS.items()})
    assert len(server.requests) == len(os.listdir(cache)) == len(addresses)


def test_a_name_with_a_hash_is_kept_under_it(server, cache):
    content = saved(PUBLISHED)
    name = f'neck-{sha(content)[:8]}.pth'
    server.files[f'/a/{name}'] = content
    same(load(f'{server.url}/a/{name}')['state_dict'], OURS)
    assert os.listdir(cache) == [name]
    same(load(f'{server.url}/elsewhere/{name}')['state_dict'], OURS)  # the same file, be it from where it may
    assert server.requests == [f'/a/{name}']


def test_the_converter_takes_an_address(server, tool, tmp_path):
    server.files['/neck.pth'] = saved({'model': PUBLISHED})
    status, out, _ = tool('convert_official.py', f'{server.url}/neck.pth', tmp_path / 'ours.pth')
    assert status == 0 and out.startswith('HorFPN: 2 tensors, 1 of them renamed, 0 dropped\n')
    same(read_checkpoint(tmp_path / 'ours.pth'), OURS)
    for address, message in ((f'{server.url}/none.pth', 'cannot be fetched: HTTP 404 Not Found'),
                             ('hf://owner/file.pth', 'names no file of the Hugging Face Hub: give hf://OWNER/NAME/FILE,'
                                                     ' or hf://OWNER/NAME@REVISION/FILE')):
        status, out, err = tool('convert_official.py', address, tmp_path / 'none.pth')
        assert (status, out, err.splitlines()[-1]) == (1, '', f'error: {address} {message}')
    assert not (tmp_path / 'none.pth').exists()


# -- the Hugging Face Hub

READ = """
import json, sys
import plugconv_mm
from mmengine.runner import CheckpointLoader
for address in sys.argv[1:]:
    try:
        print(sorted(CheckpointLoader.load_checkpoint(address, 'cpu', 'silent')['state_dict']))
    except plugconv_mm.errors.CheckpointError as error:
        print(type(error).__name__, error)
"""


def test_files_of_the_hub(server, tmp_path):
    """In another process, since the package asks for its server and its cache when it is imported."""
    pytest.importorskip('huggingface_hub')
    for name, content in (('a/neck.pth', saved({'model': PUBLISHED})),
                          ('evil.pth', saved({'model': PUBLISHED, 'meta': Mkdir(tmp_path / 'made')}))):
        for revision in ('main', 'v1'):
            path = f'/owner/name/resolve/{revision}/{name}'
            server.files[path] = content
            server.headers[path] = {'X-Repo-Commit': '0123456789' * 4, 'ETag': f'"{sha(content)}"'}
    addresses = ['hf://owner/name/a/neck.pth', 'hf://owner/name@v1/a/neck.pth', 'hf://owner/name/a/neck.pth#model',
                 'hf://owner/name/evil.pth', 'hf://owner/name/none.pth']
    environment = os.environ | dict(
        HF_ENDPOINT=server.url, HF_HOME=str(tmp_path / 'hf'), HF_HUB_DISABLE_XET='1', PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-c', READ, *addresses], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, evil, none = [line for line in done.stdout.splitlines() if line.startswith(('[', 'Checkpoint'))]
    assert lines == [str(sorted(OURS))] * 3
    assert evil.startswith('CheckpointError refused to load hf://owner/name/evil.pth')
    assert none.startswith('CheckpointNotFoundError hf://owner/name/none.pth cannot be fetched: ')
    assert not (tmp_path / 'made').exists()


def test_safetensors(server):
    from safetensors.torch import save
    server.files['/neck.safetensors'] = save(PUBLISHED)
    same(load(f'{server.url}/neck.safetensors')['state_dict'], OURS)


def test_an_entry_of_the_file(server, monkeypatch):
    said = []
    monkeypatch.setattr(logging, 'print_log', lambda message, logger: said.append(message))
    averaged = {key: value + 1 for key, value in PUBLISHED.items()}
    server.files['/neck.pth'] = saved({'model': PUBLISHED, 'model_ema': averaged})
    same(load(f'{server.url}/neck.pth')['state_dict'], OURS)
    assert said == [f"{server.url}/neck.pth holds several sets of weights: those under 'model' are used; #model_ema "
                    "behind the file's name uses averaged ones"]
    same(load(f'{server.url}/neck.pth#model_ema')['state_dict'], {key: value + 1 for key, value in OURS.items()})
    with pytest.raises(CheckpointError, match=r"neck.pth#ema: .* under 'ema'; its entries are 'model', 'model_ema'"):
        load(f'{server.url}/neck.pth#ema')
    assert len(server.requests) == len(said) == 1


def test_code_is_refused(server, cache, tmp_path):
    server.files['/x.pth'] = saved({'state_dict': PUBLISHED, 'meta': Mkdir(tmp_path / 'made')})
    with pytest.raises(CheckpointError, match=rf"refused to load {server.url}/x\.pth.*'posix\.mkdir'"):
        load(f'{server.url}/x.pth')
    assert not (tmp_path / 'made').exists()
    assert not os.listdir(cache)


def test_the_hash_in_a_name(server, cache):
    good, bad = saved(PUBLISHED), saved({'model': PUBLISHED})
    name = f'/neck_20220301-{sha(good)[:8]}.pth'
    server.files[name] = bad
    with pytest.raises(CheckpointError, match=f'{name} is not the file that its name promises, .* {sha(good)[:8]}: '):
        load(server.url + name)
    assert not os.listdir(cache)
    server.files[name] = good
    same(load(server.url + name)['state_dict'], OURS)
    for name in ('/neck-20220301.pth', '/epoch-300.pth', '/resnet50-decade.pth'):  # these are no hashes
        server.files[name] = good
        same(load(server.url + name)['state_dict'], OURS)


@pytest.mark.parametrize('content, message', [
    (b'<!DOCTYPE html>', 'is a web page'), (b'', 'is empty'), (b'something else', 'is not a checkpoint')])
def test_files_that_are_none(server, cache, content, message):
    server.files['/neck.pth'] = content
    with pytest.raises(CheckpointError, match=f'{server.url}/neck.pth {message}'):
        load(f'{server.url}/neck.pth')
    assert not os.listdir(cache)


def test_a_download_that_breaks_off_is_not_kept(server, cache):
    content = saved(PUBLISHED)
    server.files['/neck.pth'], server.missing = content[:-100], 100
    with pytest.raises(CheckpointError, match='neck.pth .*damaged or truncated'):
        load(f'{server.url}/neck.pth')
    assert not os.listdir(cache)
    server.files['/neck.pth'], server.missing = content, 0
    same(load(f'{server.url}/neck.pth')['state_dict'], OURS)


def test_a_damaged_copy_is_named(server, cache):
    cache.mkdir(parents=True)
    (cache / 'neck-0123456789.pth').write_bytes(saved(PUBLISHED)[:-100])
    address = f'{server.url}/neck-0123456789.pth'
    with pytest.raises(CheckpointError, match=rf'{cache}/neck-0123456789.pth .* It is a copy of {address}: remove it'):
        load(address)


def test_addresses_that_cannot_be_reached(server, cache):
    for kind, address, message in (
            (CheckpointNotFoundError, f'{server.url}/none.pth', f'{server.url}/none.pth cannot be fetched: HTTP 404'),
            (CheckpointError, 'http://127.0.0.1:9/none.pth', '127.0.0.1:9/none.pth cannot be fetched: .*refused'),
            (CheckpointError, f'{server.url}/', f'{server.url}/ names no file')):
        with pytest.raises(kind, match=message) as error:
            load(address)
        assert '\n' not in str(error.value)
    assert not os.listdir(cache)


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / 'torch').write_text('a file')
    server.files['/neck.pth'] = saved(PUBLISHED)
    with pytest.raises(OutputError, match='neck.pth cannot be kept there'):
        load(f'{server.url}/neck.pth')


def test_the_first_process_downloads_first(server, monkeypatch):
    """The others read after it, and do not wait for it if it fails."""
    server.files['/neck.pth'] = saved(PUBLISHED)
    events = server.requests
    monkeypatch.setattr(dist, 'barrier', lambda: events.append('barrier'))
    load(f'{server.url}/neck.pth')
    assert events == ['/neck.pth', 'barrier']
    monkeypatch.setattr(dist, 'get_rank', lambda: 1)
    load(f'{server.url}/neck.pth')
    assert events == ['/neck.pth', 'barrier', 'barrier']
    monkeypatch.setattr(dist, 'get_rank', lambda: 0)
    with pytest.raises(CheckpointNotFoundError):
        load(f'{server.url}/none.pth')
    assert events[3:] == ['/none.pth', 'barrier']


# -- the schemes of mmengine

class Petrel(fileio.BaseStorageBackend):
    files = {}

    def __init__(self, **kwargs):
        pass

    def get(self, filepath):
        return self.files[str(filepath)]

    get_text = get


@pytest.fixture
def schemes(server, monkeypatch, tmp_path):
    """Makes a checkpoint reachable by each scheme; returns the addresses."""
    tables = 'get_torchvision_models', 'get_external_models', 'get_mmcls_models'

    def publish(content):
        server.files['/zoo.pth'] = content
        for table in tables[::2]:
            monkeypatch.setattr(mmengine_checkpoint, table, lambda: {'zoo': f'{server.url}/zoo.pth'})
        (tmp_path / 'mmengine/open_mmlab.json').write_text(json.dumps(
            {'zoo': f'{server.url}/zoo.pth', 'here': 'here.pth'}))
        (tmp_path / 'mmengine/here.pth').write_bytes(content)
        Petrel.files = dict.fromkeys(('s3://bucket/x.pth', 'cluster:s3://bucket/x.pth', 'petrel://bucket/x.pth'),
                                     content)
        monkeypatch.setattr(fileio, 'get_file_backend', lambda uri, backend_args: Petrel(**backend_args))
        model = types.SimpleNamespace(name='x.pth', download=lambda path: open(path, 'wb').write(content))
        monkeypatch.setitem(sys.modules, 'pavi', types.SimpleNamespace(
            modelcloud=types.SimpleNamespace(get={'group/x': model}.get)))
        return [f'{server.url}/zoo.pth', 'torchvision://zoo', 'modelzoo://zoo', 'openmmlab://zoo', 'open-mmlab://zoo',
                'openmmlab://here', *Petrel.files, 'pavi://group/x']

    return publish


def test_each_scheme_that_mmengine_knows_is_ours():
    assert {loader.__module__ for loader in CheckpointLoader._schemes.values()} == {loaders.__name__}


def test_each_scheme_converts(schemes):
    for address in schemes(saved({'model': PUBLISHED})):
        same(load(address)['state_dict'], OURS)


def test_each_scheme_takes_an_entry(schemes):
    for address in schemes(saved({'model': {}, 'mine': PUBLISHED})):
        same(load(f'{address}#mine')['state_dict'], OURS)


def test_no_scheme_runs_code(schemes, tmp_path):
    for address in [*schemes(saved({'state_dict': PUBLISHED, 'meta': Mkdir(tmp_path / 'made')})), 'mmcls://zoo']:
        with pytest.raises(CheckpointError, match='refused to load'):
            load(address)
        assert not (tmp_path / 'made').exists()


def test_mmcls_gives_the_backbone(schemes):
    schemes(saved({'state_dict': {'backbone.conv.weight': torch.ones(1), 'head.fc.weight': torch.zeros(1)}}))
    same(load('mmcls://zoo')['state_dict'], {'conv.weight': torch.ones(1)})


def test_names_that_no_zoo_has(schemes):
    schemes(saved(PUBLISHED))
    with pytest.raises(CheckpointNotFoundError, match='torchvision:// has no model zoom: did you mean zoo'):
        load('torchvision://zoom')
    with pytest.raises(CheckpointNotFoundError, match='mmcls:// has no model resnet, but for example zoo'):
        load('mmcls://resnet')
    with pytest.raises(CheckpointError, match='ftp://x/y.pth is no address that mmengine knows'):
        load('ftp://x/y.pth')
    with pytest.raises(CheckpointNotFoundError, match='there is no checkpoint nowhere.pth'):
        load('nowhere.pth')


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pavi', None)
    with pytest.raises(MissingPackageError, match='pavi://x needs the package pavi'):
        load('pavi://x')
    with pytest.raises(MissingPackageError, match='s3://bucket/x.pth cannot be fetched: .*petrel'):
        load('s3://bucket/x.pth')
