"""The commands of the README, of the documentation and of the configs' pages run, each as it is written there.

Sandbox and stand-ins: conftest.py, ../helpers/docs_harness/stand_ins.py. How commands are made shorter, and where the
files that they read come from: ../helpers/docs_harness/interpreter.py.
"""
import re
from pathlib import Path

import pytest
from docs_harness import blocks

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

ROOT = Path(__file__).parents[2]
DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
# CONFIG on a page about one family, and of options that are of one task; else DETECTOR.
CONFIGS = {
    r'slak': 'configs/slak/slak-tiny_32xb128_in1k.py',
    r'hornet': 'configs/hornet/hornet-tiny-gf_32xb128_in1k.py',
    r'kernel_?warehouse': 'configs/kernel_warehouse/kw1d4x-resnet18_32xb128_in1k.py',
    r'transcnn': 'configs/transcnn/transcnn-tiny_8xb128_in1k-256px.py',
}
# What the pages leave to the reader. KEY of a table of options stands for itself.
PLACEHOLDERS = {
    'CHECKPOINT': 'checkpoints/checkpoint.pth',
    'WORK_DIR': 'work_dirs/training',
    'DIR': 'work_dirs/out',
    'FILE': 'work_dirs/file',
    'FOLDER': 'work_dirs/folder',
    'IMAGE_OR_FOLDER': 'data/digits/val',
    'IMAGE_OR_FOLDER_OR_VIDEO': 'data/digits/val',
    'SOURCE': 'data/digits/val',
    'IMAGE': 'image.jpg',
    'IMAGE_1': 'data/digits/val/val_00000.jpg',
    'IMAGE_2': 'data/digits/val/val_00001.jpg',
    'KEY=VALUE': 'log_level=WARNING',
    'GPUS': '2',
    'H': '64',
    'W': '96',
    'PARTITION': 'gpu',
    'JOB_NAME': 'training',
}
# Commands that take more than a few seconds: networks at full width, several of them, ONNX, processes of their own.
HEAVY = re.compile(r'configs/(?!digits)|package::|timm::|-m benchmarks|(compare|erf|vis_cam|export_onnx|onnx_infer|'
                   r'convert_onnx|test_exported|check_configs|controlled_study|draw_operators|tools/demo)\.py|'
                   r'(dist|slurm)_(train|test)\.sh|torchrun|-m torch')
# The rows of the tables of configs, which update_model_zoo.py writes. They need 8 GPUs and more: what they run is
# dry-run by test_runtime/test_dry_run.py, config by config, and dist_train.sh by test_tools/test_train_test.py.
ROW = re.compile(r'^\| \[[^]]+\]\(([^)]+\.py)\) .*\| `bash tools/dist_train\.sh (configs/\S+\.py) (\d+)` \|$', re.M)


def fill_in(block):
    """A command with something in the place of what the page leaves to the reader; options in brackets are given."""
    text = re.sub(r'<[a-z][^<>\n]*>', 'address', block.text)
    if text.startswith('--cfg-options'):
        text = f'python tools/train.py CONFIG {text}'
    if 'CONFIG' in text:
        config = next((config for family, config in CONFIGS.items() if re.search(family, block.page)), DETECTOR)
        text = re.sub(r'\bCONFIG\b', SEGMENTOR if 'model.test_cfg.mode' in text else config, text)
    text = re.sub(r'(?<=\s)\[([^][]*)\](?=\s|$)', r'\1', text)  # an option that can be left out
    text = re.sub(r'(?<=\s)(\.\.\.|…)(?=\s|$)', '', text)  # more of the same
    for name, value in PLACEHOLDERS.items():
        text = re.sub(rf'(?<![\w./=-]){name}(?![\w./=-])', value, text)
    return text


def shown_commands():
    """Those in blocks and those within the text, each once, with the place where it is first."""
    found = {}
    for page in blocks.pages():
        rows = {f'bash tools/dist_train.sh {config} {gpus}' for _, config, gpus in ROW.findall(
            (ROOT / page).read_text(encoding='utf-8'))}
        for block in blocks.read(page):
            if block.language == 'inline' and block.text in rows:
                continue
            if block.language in (*blocks.SHELL, 'inline'):
                for command in blocks.commands(block):
                    text = re.sub(r'\s+#\s.*', '', fill_in(command))
                    # options are those of a training; the README's are run by default, of the other pages' what is fast
                    slow = HEAVY.search(text) or command.text.startswith('--') or (
                        page != 'README.md' and re.search(r'tools/(train|test)\.py', text))
                    found.setdefault(' '.join(text.split()), pytest.param(
                        command.place, text, id=command.place,
                        marks=[pytest.mark.slow] if slow else []))
    return list(found.values())


@pytest.mark.parametrize('place, command', shown_commands())
def test_command(place, command, sandbox):
    sandbox.run(command, place)


@pytest.mark.parametrize('page', [page for page in blocks.pages() if ROW.search((ROOT / page).read_text())])
def test_tables_of_configs(page):
    """The command of each row trains the config of that row, and all configs of the folder have one."""
    rows = ROW.findall((ROOT / page).read_text(encoding='utf-8'))
    folder = (ROOT / page).parent
    for config, trained, gpus in rows:
        assert (folder / config).is_file() and ROOT / trained == folder / config and int(gpus) > 0
    assert {config for config, _, _ in rows} == {path.name for path in folder.glob('*.py')}


def test_nothing_is_left_out():
    """Every block is of a language that one of these tests runs, or is output."""
    for page in blocks.pages():
        for block in blocks.read(page):
            assert block.language in (*blocks.SHELL, *blocks.PYTHON, *blocks.OUTPUT, 'inline'), (
                f'{block.place}: no test runs blocks of the language {block.language}')
            if block.language in blocks.OUTPUT:
                assert not blocks.looks_like_commands(block), (
                    f'{block.place}: commands; call the language of the block shell, so that they are run')
            if block.language in blocks.SHELL:
                assert list(blocks.commands(block)), f'{block.place}: a block of the shell without a command'


# The harness itself


def test_a_wrong_command_fails(sandbox):
    for command, message in (
            ('python tools/analysis_tools/get_flops.py configs/no_such_config.py', 'there is no config'),
            ('python tools/test.py --no-such-option', 'the following arguments are required'),
            ('python tools/no_such_tool.py', 'No such file'),
            ('no_such_program --help', 'no rule covers'),
            ('make no_such_target', 'No rule to make target'),
            ("pip install -e '.[no_such_extra]'", 'no_such_extra is no requirement'),
            ('pip install no-such-package', 'no-such-package is no requirement'),
            ('python -c "import sys; sys.exit(3)" --out nowhere', 'exit code 3'),
            ('python -c "" --out nowhere', 'nowhere is not there'),
            ('if true', 'syntax error')):
        with pytest.raises(pytest.fail.Exception, match=r'page\.md:7') as failed:
            sandbox.run(command, 'page.md:7')
        assert message in str(failed.value), failed.value


def test_srun_takes_what_the_scripts_give(sandbox):
    """As a user of SLURM would call them, but with one task and no launcher."""
    sandbox.environment = {**sandbox.environment, 'GPUS': '16', 'SRUN_ARGS': '--exclude node7 --time 1:00:00'}
    sandbox.run(f'bash tools/slurm_train.sh gpu training {SEGMENTOR} work_dirs/run', 'slurm_train.sh')
    assert (sandbox.folder / 'work_dirs/run/last_checkpoint').is_file()
    sandbox.run(f'bash tools/slurm_test.sh gpu test {SEGMENTOR} work_dirs/run/iter_2.pth', 'slurm_test.sh')


def test_reading_a_page(tmp_path, monkeypatch):
    (tmp_path / 'README.md').write_text('''# Title
Run `make
test -k` or `make`, `python -m x`.

````{tab-item} One
```{code-block} shell
:linenos:

for i in 1 2; do
    echo $i   # both
done
export A=1
python - <<'EOF'
print(1)

EOF
```
````
1. In a list:
   ```console
   $ python a.py \\
       --b
   what it prints
   $ cd x && ls | wc
   ```
~~~
output
~~~
''')
    monkeypatch.setattr(blocks, 'ROOT', tmp_path)
    assert blocks.pages() == ['README.md']
    found = blocks.read('README.md')
    assert [(b.line, b.language) for b in found] == [
        (2, 'inline'), (3, 'inline'), (9, 'shell'), (21, 'console'), (27, '')]
    assert [b.text for b in found[:2]] == ['make test -k', 'python -m x']
    assert [(b.line, b.text) for b in blocks.commands(found[2])] == [
        (9, 'for i in 1 2; do\n    echo $i   # both\ndone'), (12, 'export A=1'),
        (13, "export A=1\npython - <<'EOF'\nprint(1)\n\nEOF")]
    assert [(b.line, b.text) for b in blocks.commands(found[3])] == [
        (21, 'python a.py \\\n    --b'), (24, 'cd x && ls | wc')]
