"""The set-up's stamps, messages and repairs, without network."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = ROOT / 'tools' / 'setup.sh'
TESTED = '{}.{}'.format(*sys.version_info[:2])

sys.path.insert(0, str(ROOT / 'tools'))

from environment import progress, site_packages  # noqa: E402
from environment.failures import SetupError  # noqa: E402
from environment.installation import TOOLS, Installation  # noqa: E402
from environment.stacks import STACKS, choose_stack, default_folder  # noqa: E402
from environment.stamps import Step  # noqa: E402
from environment.venv import Environment  # noqa: E402

ONEDL, OPENMMLAB = STACKS['onedl'], STACKS['openmmlab']


@pytest.fixture
def environment(tmp_path):
    """An open environment in an empty folder, whose Python is a link to this one."""
    made = Environment(tmp_path / 'venv', ONEDL)
    made.open()
    made.python.parent.mkdir(parents=True)
    made.site_packages.mkdir(parents=True)
    made.python.symlink_to(sys.executable)
    yield made
    made.lock.close()


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n', encoding='utf-8')
    path.chmod(0o755)
    return path


def run_setup(venv, python=None, path=None):
    variables = {key: value for key, value in os.environ.items() if key != 'PYTHON'}
    variables.update(VENV=str(venv), **({'PYTHON': str(python)} if python else {}), **({'PATH': path} if path else {}))
    return subprocess.run(['/bin/sh', str(SETUP)], env=variables, capture_output=True, text=True, timeout=60)


# -- which Python

@pytest.mark.parametrize('version', ['2.7.18', '3.6.9', '3.9.19'])
def test_an_old_python_is_named_and_refused(tmp_path, version):
    python = script(tmp_path / 'python', f'printf {version}')
    done = run_setup(tmp_path / 'venv', python)
    assert done.returncode == 1
    assert f'PYTHON={python} is Python {version}' in done.stderr and 'Python 3.11 is needed' in done.stderr
    assert 'What to try' in done.stderr
    assert not (tmp_path / 'venv').exists()


def test_a_newer_python_is_warned_about(tmp_path):
    python = script(tmp_path / 'python', 'case "$1" in -c) printf 3.13.1 ;; *) echo handed over to "$1" ;; esac')
    done = run_setup(tmp_path / 'venv', python)
    assert 'tried with Python 3.11 only' in done.stderr
    assert 'handed over to' in done.stdout


def test_a_missing_python_is_named(tmp_path):
    done = run_setup(tmp_path / 'venv', tmp_path / 'nowhere' / 'python3.11')
    assert done.returncode == 1
    assert 'nowhere/python3.11 is not a Python that runs' in done.stderr
    assert 'What to try' in done.stderr


def test_no_python_on_path_says_what_was_seen(tmp_path):
    script(tmp_path / 'bin' / 'python3', 'printf 3.9.2')
    # A stand-in like pyenv's: there, but without the version behind it.
    script(tmp_path / 'bin' / 'python3.11', 'echo "command not found" >&2; exit 127')
    (tmp_path / 'bin' / 'dirname').symlink_to('/usr/bin/dirname')
    done = run_setup(tmp_path / 'venv', path=str(tmp_path / 'bin'))
    assert done.returncode == 1
    assert 'no Python from 3.10 to 3.13 was found on PATH (python3 is Python 3.9.2)' in done.stderr


# -- which folder

def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('precious', encoding='utf-8')
    with pytest.raises(SetupError, match='is no virtual environment'):
        Environment(tmp_path, ONEDL).open()
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_a_file_is_refused(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SetupError, match='is a file'):
        Environment(tmp_path / 'file', ONEDL).open()


def test_a_broken_environment_of_others_is_left_alone(tmp_path):
    (tmp_path / 'pyvenv.cfg').touch()
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'python').symlink_to(tmp_path / 'gone')
    with pytest.raises(SetupError, match='made elsewhere, and its Python or pip does not run'):
        Environment(tmp_path, ONEDL).open()
    assert not (tmp_path / '.setup').exists()


def test_our_broken_environment_is_made_anew(environment, capsys):
    environment.stamps.mark_done('venv', 'x')
    environment.stamps.mark_done('torch', 'x')
    environment.python.unlink()
    environment.python.symlink_to(environment.venv / 'gone')
    again = Environment(environment.venv, ONEDL)
    environment.lock.close()
    again.open()
    again.lock.close()
    assert 'anew' in capsys.readouterr().out
    assert not list(again.state.glob('*.done'))


def test_another_python_version_inside_is_refused(environment):
    environment.stamps.mark_done('venv', 'x')
    environment.python.unlink()
    script(environment.python, 'echo 3.9')
    environment.lock.close()
    with pytest.raises(SetupError, match=f'holds Python 3.9, and PYTHON is Python {TESTED}'):
        Environment(environment.venv, ONEDL).open()


@pytest.mark.parametrize('stack, other, name', [
    (ONEDL, OPENMMLAB, 'mmcv-2.1.0'), (ONEDL, OPENMMLAB, 'mmcv_lite-2.1.0'), (OPENMMLAB, ONEDL, 'onedl_mmcv-2.3.6')])
def test_packages_of_the_other_stack_are_not_overwritten(environment, stack, other, name):
    """The folder is refused before anything in it changes, and is welcome to its own stack."""
    (environment.site_packages / f'{name}.dist-info').mkdir()
    environment.stamps.mark_done('torch', 'x')
    environment.lock.close()
    with pytest.raises(SetupError, match=name) as caught:
        Environment(environment.venv, stack).open()
    assert f'STACK={other.name}' in caught.value.advice and 'VENV=' in caught.value.advice
    assert environment.stamps.is_done('torch', 'x')
    again = Environment(environment.venv, other)
    again.open()
    again.lock.close()


def test_each_stack_has_a_folder_and_an_unknown_one_is_named():
    assert [default_folder(choose_stack(name)).name for name in ('onedl', 'openmmlab')] == ['.venv', '.venv-openmmlab']
    with pytest.raises(SetupError, match='STACK=mmlab is no stack') as caught:
        choose_stack('mmlab')
    assert 'onedl, openmmlab' in caught.value.advice


def test_make_and_the_script_choose_the_same_folder():
    for stack in STACKS.values():
        shown = subprocess.run(['make', '-C', str(ROOT), '-n', 'distclean', f'STACK={stack.name}'], check=True,
                               capture_output=True, text=True,
                               env={key: value for key, value in os.environ.items() if key not in ('VENV', 'STACK')})
        assert f'rm -rf "{default_folder(stack).name}"' in shown.stdout


# -- stamps

@pytest.fixture
def counted(tmp_path):
    """Three steps over two files, and the names of those that ran."""
    first, second = tmp_path / 'first.txt', tmp_path / 'second.txt'
    first.write_text('1', encoding='utf-8')
    second.write_text('2', encoding='utf-8')
    ran = []
    steps = [Step(name, name, 'a moment', inputs, lambda name=name: ran.append(name))
             for name, inputs in (('a', (first, )), ('b', (second, )), ('c', ()))]
    return steps, ran, first, second


def test_finished_steps_are_not_run_again(environment, counted):
    steps, ran, *_ = counted
    assert environment.execute(steps) == 3
    assert environment.execute(steps) == 0
    assert ran == ['a', 'b', 'c']


def test_a_changed_input_runs_its_step_and_those_after_it(environment, counted):
    steps, ran, first, second = counted
    environment.execute(steps)
    second.write_text('changed', encoding='utf-8')
    environment.execute(steps)
    assert ran == ['a', 'b', 'c', 'b', 'c']
    first.write_text('changed', encoding='utf-8')
    environment.execute(steps)
    assert ran[5:] == ['a', 'b', 'c']


def test_an_interrupted_step_is_run_again(environment, counted):
    steps, ran, *_ = counted

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment.execute([steps[0], steps[1]._replace(action=interrupted), steps[2]])
    assert environment.execute(steps) == 2
    assert ran == ['a', 'b', 'c']


def test_a_failed_step_says_which_and_where_the_log_is(environment, counted):
    steps, *_ = counted

    def failing():
        raise SetupError('the disk is full.', 'free some.')

    with pytest.raises(SetupError, match='step 2 of 3, b, failed: the disk is full') as caught:
        environment.execute([steps[0], steps[1]._replace(action=failing), steps[2]])
    assert caught.value.advice.startswith('free some.') and str(environment.log) in caught.value.advice


def test_the_steps_depend_on_the_pinned_versions(environment):
    inputs = [path for step in Installation(environment).setup_steps() for path in step.inputs]
    assert {ONEDL.constraints, ROOT / 'setup.py', ROOT / 'requirements' / 'onedl.txt'} <= set(inputs)
    environment.stack = OPENMMLAB
    inputs = [path for step in Installation(environment).setup_steps() for path in step.inputs]
    assert {OPENMMLAB.constraints, ONEDL.constraints, ROOT / 'requirements' / 'openmmlab.txt'} <= set(inputs)
    assert ROOT / 'requirements' / 'onedl.txt' not in inputs


def test_the_set_up_installs_what_the_tests_need():
    # Read as text: tomllib came with Python 3.11, and the package supports 3.10.
    lines = (ROOT / 'pyproject.toml').read_text(encoding='utf-8').split('optional-dependencies.tests = ')[1]
    extra = re.findall(r'"(requirements/[^"]+)"', lines.split(']')[0])
    assert extra and [str(file.relative_to(ROOT)) for file in TOOLS] == extra


def test_the_documentation_comes_on_top(environment, counted, monkeypatch):
    """What `make docs` needs is installed once, with the pinned versions, and again in an environment made anew."""
    steps, ran, first, _ = counted
    installed = []
    monkeypatch.setattr(environment, 'run', lambda *command: installed.append(command))
    environment.execute(steps)
    for _ in range(2):
        environment.execute([*steps, Installation(environment).docs_step()])
    assert ran == ['a', 'b', 'c'] and len(installed) == 1
    assert str(ONEDL.constraints) in installed[0] and str(ROOT / 'requirements/docs.txt') in installed[0]
    first.write_text('changed', encoding='utf-8')
    environment.execute([*steps, Installation(environment).docs_step()])
    assert len(installed) == 2


# -- repairs

def test_half_installed_packages_are_discarded(tmp_path):
    for name, record in (('whole-1.0', True), ('half-1.0', False)):
        (tmp_path / f'{name}.dist-info').mkdir()
        (tmp_path / f'{name}.dist-info' / 'METADATA').touch()
        if record:
            (tmp_path / f'{name}.dist-info' / 'RECORD').touch()
    (tmp_path / '~orch').mkdir()
    (tmp_path / 'torch').mkdir()
    site_packages.discard_half_installed(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['torch', 'whole-1.0.dist-info']


def test_only_the_headless_opencv_stays(environment, monkeypatch):
    site = environment.site_packages
    files = {'opencv_python': ('cv2/cv2.so', 'cv2/qt/plugins/platforms/plugin.so'),
             'opencv_python_headless': ('cv2/cv2.so', )}
    for name, recorded in files.items():
        (site / f'{name}-4.dist-info').mkdir()
        lines = [f'{name}-4.dist-info/METADATA,,', *(f'{file},sha256=x,1' for file in recorded)]
        (site / f'{name}-4.dist-info' / 'RECORD').write_text('\n'.join(lines), encoding='utf-8')
        (site / f'{name}-4.dist-info' / 'METADATA').touch()
        for file in recorded:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).touch()
    monkeypatch.setattr(environment, 'pip', lambda *arguments: None)
    Installation(environment).install_opencv()
    assert (site / 'cv2' / 'cv2.so').is_file()
    assert not (site / 'cv2' / 'qt').exists()
    assert (site / 'opencv_python-4.dist-info' / 'METADATA').is_file()


# -- failing commands

@pytest.mark.parametrize('output, reason, advice', [
    ('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device', 'disk is full',
     'free about 8 GB'),
    ('WARNING: Retrying: NewConnectionError(Failed to establish a new connection: [Errno -3] Temporary failure in name '
     'resolution)\nERROR: No matching distribution found for torch==2.11.0', 'registry cannot be reached', 'network'),
    ('Failed to establish a new connection: [Errno 111] Connection refused\nThe user requested (constraint) ninja==1\n'
     'ERROR: ResolutionImpossible: for help visit', 'registry cannot be reached', 'network'),
    ('ERROR: No matching distribution found for torch==2.11.0', 'offers no torch==2.11.0', 'Python 3.11'),
    ('The virtual environment was not created successfully because ensurepip is not available.', 'venv module',
     f'python{TESTED}-venv'),
    ('ERROR: ResolutionImpossible: for help visit', 'do not fit together', 'requirements/'),
    ("error: [Errno 13] Permission denied: '/opt/venv'", 'may not be written', 'VENV='),
    ('c++: fatal error: Killed signal terminated program cc1plus', 'memory ran out', 'MAX_JOBS=1'),
    ('something else', 'status 1', 'output above'),
])
def test_pip_failures_are_explained(environment, capsys, output, reason, advice):
    environment.python.unlink()
    quoted = output.replace("'", "'\\''")
    script(environment.python, f"printf '%s\\n' '{quoted}'; exit 1")
    with pytest.raises(SetupError, match=reason) as caught:
        environment.pip('torch==2.11.0')
    assert advice in caught.value.advice and '{' not in caught.value.advice
    assert output.splitlines()[-1] in capsys.readouterr().out


def test_a_whole_setup_fails_in_plain_words(tmp_path):
    """From the shell on: the step, the reason, the advice, and a status that make sees."""
    venv = tmp_path / 'venv'
    fake = f'''
case "$*" in
  *"-m venv"*) mkdir -p {venv}/bin; touch {venv}/pyvenv.cfg; cp "$0" {venv}/bin/python ;;
  *"-m pip"*) echo "ERROR: [Errno 28] No space left on device"; exit 1 ;;
  *) exec {sys.executable} "$@" ;;
esac'''
    python = script(tmp_path / 'python', fake)
    # The set-up calls its own interpreter for the environment; the stand-in takes that place.
    hand_over = f'{sys.executable} -c "import sys, runpy; sys.argv = sys.argv[1:]; sys.executable = \'{python}\'; ' \
                'runpy.run_path(sys.argv[0], run_name=\'__main__\')"'
    first = script(tmp_path / 'first', f'case "$1" in -c) exec {sys.executable} "$@" ;; esac\n{hand_over} "$@"')
    done = run_setup(venv, first)
    assert done.returncode == 1, done.stdout + done.stderr
    assert '[1/5] virtual environment' in done.stdout
    assert 'step 1 of 5' in done.stderr and 'the disk is full' in done.stderr and 'VENV=' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (venv / '.setup' / 'venv.done').exists()


def test_commands_do_not_see_what_points_outside(environment, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/elsewhere')
    monkeypatch.setenv('PIP_NO_BUILD_ISOLATION', '0')
    variables = environment.variables()
    assert 'PYTHONPATH' not in variables and 'PIP_NO_BUILD_ISOLATION' not in variables
    assert variables['PATH'].split(os.pathsep)[0] == str(environment.venv / 'bin')


def test_a_second_setup_waits_for_the_first(environment):
    code = ('import sys; sys.path.insert(0, sys.argv[1]); from environment.stacks import STACKS;'
            'from environment.venv import Environment; Environment(sys.argv[2], STACKS["onedl"]).open(); print("open")')
    other = subprocess.Popen([sys.executable, '-c', code, str(ROOT / 'tools'), str(environment.venv)],
                             stdout=subprocess.PIPE, text=True)
    assert 'waiting' in other.stdout.readline()
    environment.lock.close()
    assert other.communicate(timeout=30)[0].strip() == 'open'


@pytest.mark.parametrize('output, expected', [
    ('Collecting torch==2.11.0 (from -r x)\n  Downloading torch-2.11.0.whl (9 MB)\n', 'Downloading torch-2.11.0.whl'),
    ('  [1/180] c++ -O3 a.cpp\n  [12/180] c++ -O3 b.cpp\n', 'compiled 12 of 180 files'),
    ('  Downloading torch-2.11.0.whl (9 MB)\nInstalling collected packages: numpy, torch\n', 'unpacking the packages'),
    ('', ''),
])
def test_the_progress_line_says_what_goes_on(output, expected):
    assert progress.activity(output) == expected
