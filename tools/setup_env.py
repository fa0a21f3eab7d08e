"""Sets up the environment that `make demo` and `make test` share. Called by setup.sh; standard library only.

    python3.11 tools/setup_env.py                        # the pinned stack and plugconv_mm in .venv, in five steps
    STACK=openmmlab python3.11 tools/setup_env.py        # the original OpenMMLab packages, in .venv-openmmlab
    VENV=folder python3.11 tools/setup_env.py            # in another folder
    python3.11 tools/setup_env.py --mmcv                 # mmcv's compiled operators on top
    python3.11 tools/setup_env.py --docs                 # what builds the documentation on top

Each finished step leaves a stamp under ``$VENV/.setup``: a hash of everything the step depends on. A step whose stamp
matches is not run again, so a second call returns at once, and an interrupted call resumes where it was.
"""
import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from environment.failures import SetupError, explain  # noqa: E402
from environment.installation import Installation  # noqa: E402
from environment.progress import duration  # noqa: E402
from environment.stacks import choose_stack, default_folder  # noqa: E402
from environment.venv import Environment  # noqa: E402


def set_up(environment: Environment, docs: bool, mmcv: bool) -> None:
    """Runs what is not done yet, and says how the environment stands."""
    began = time.monotonic()
    environment.open()
    installation = Installation(environment)
    ran = environment.execute((*installation.setup_steps(), *([installation.docs_step()] if docs else [])))
    seconds = time.monotonic() - began
    (environment.state / 'seconds').write_text(f'{seconds:.1f}\n', encoding='utf-8')
    state = 'complete' if ran else 'up to date'
    print(f'set-up of {environment.venv} {state} ({duration(seconds)})', flush=True)
    if mmcv:
        if installation.compiled_mmcv() is None:
            environment.stamps.path('mmcv').unlink(missing_ok=True)
            environment.execute((installation.mmcv_step(), ))
        print(f'the compiled operators load: {installation.compiled_mmcv()}. plugconv_mm uses them from now on; '
              'PLUGCONV_MMCV_OPS=torchvision goes without.', flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--mmcv', action='store_true', help='compile the operators of mmcv into the environment')
    parser.add_argument('--docs', action='store_true', help='install what builds the documentation, too')
    args = parser.parse_args()
    try:
        stack = choose_stack(os.environ.get('STACK') or 'onedl')
        environment = Environment(os.environ.get('VENV') or default_folder(stack), stack)
    except SetupError as error:
        print(f'{error}\nWhat to try: {error.advice}', file=sys.stderr)
        return 1
    try:
        set_up(environment, args.docs, args.mmcv)
    except SetupError as error:
        print(f'{error}\nWhat to try: {error.advice}', file=sys.stderr)
        return 1
    except OSError as error:
        reason, advice = explain(str(error), 1, venv=environment.venv, python=environment.python,
                                 version=environment.version)
        print(f'{error}: {reason}\nWhat to try: {advice}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up interrupted; the same command resumes it', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
