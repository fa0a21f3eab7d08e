"""The Python of the commands: forked for each of them from one process that has imported all there is.

Each command runs in a process, folder and environment of its own, as written, but that it is shorter: see LENGTHS,
SMALL and LEFT_OUT. What it reads and is not there is made beforehand: checkpoints with random weights of the config
that the command names, images, a log. What it is told to write has to be there afterwards.
"""
import argparse
import atexit
import contextlib
import fnmatch
import gc
import glob
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import sys
import traceback
from pathlib import Path

# The package comes before mmdet, whose modules look for mmcv's operators while they are imported.
PRELOADED = ('plugconv_mm.runtime.build', 'plugconv_mm.runtime.dry_run', 'mmdet.apis', 'mmseg.apis',
             'mmpretrain.apis', 'torch._dynamo', 'matplotlib.pyplot', 'sklearn.datasets', 'cv2')
# Tools and what is added to their arguments, so that they end in seconds.
LENGTHS = {
    'compare.py': '--shape 64 64 --rounds 1',
    'erf.py': '--size 64 --num 1',
    'vis_cam.py': '--num 1',
    'digits.py': '--num-train 4 --num-val 2',
    'export_onnx.py': '--shape 160 160',
    'benchmarks.parc_backends': '--seconds 0.001 --largest 28',
    'benchmarks.high_resolution': '--shape 64 96',
    'benchmarks.backbones': '--families parc-mobilenetv2 --modes small --seconds 0.01',
    'benchmarks.compiled': '--families parc-mobilenetv2 --side 64 --seconds 0.01',
    'benchmarks.exported_detectors': 'configs/digits/rtmdet_tiny-k13_digits.py --shape 160 160 --formats onnx '
                                     '--seconds 0.01',
    'benchmarks.detector_steps': 'configs/digits/faster-rcnn_r50-thin_horfpn_digits.py --seconds 0.01',
    'benchmarks.half_precision': '--families parc-mobilenetv2 --side 64 --seconds 0.01',
    'benchmarks.large_kernels': '--maps 14 --batches 1 --dtypes float32 --seconds 0.01',
    'benchmarks.memory': '--families parc-mobilenetv2 --side 64',
    'benchmarks.plugged_layers': '--seconds 0.001',
    'benchmarks.scaling': '--networks parc-convnext resnet50 --sides 64 96 --seconds 0.01',
    'benchmarks.training_steps': '--families parc-mobilenetv2 --side 64',
    'update_model_zoo.py': '--tables',
    'distant_cue.py': '--num-train 8 --num-val 2',
    'controlled_study.py': '--seeds 1 --iters 4',
}
# Tools whose configs become small, as runtime/shrink_config.py makes them: images, iterations, missing weights.
SMALL = ('train.py', 'test.py', 'image_demo.py', 'vis_cam.py')
# Options that are parsed and then left out: they need CUDA, or a screen.
LEFT_OUT = ('amp', 'show')
# Options that name what is written; of the converters it is the last argument.
OUTPUTS = ('--out', '--out-dir', '--work-dir', '--table')
CONVERTERS = ('convert_official.py', 'switch_to_deploy.py', 'convert_onnx.py')
EXPORTED = ('.onnx', '.xml', '.pt2')
SLAK = 'configs/slak/slak-tiny_32xb128_in1k.py'
DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'


def serve(path):
    """Answer each connection with a process; the exit code goes back."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # else the first collection of each process copies all there is
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request['folder'])
    os.environ.clear()
    os.environ.update(request['environment'])
    sys.executable = shutil.which('python')
    os.environ['PYTHON_EXEC'] = sys.executable  # torch.distributed.run takes this one
    arguments = shorten(request['arguments'])
    # preparing leaves no trace in the process that runs the command
    code = apart(lambda: prepare(arguments)) or apart(lambda: run(arguments)) or look_for_outputs(arguments)
    connection.sendall(f'{code}\n'.encode())
    connection.close()
    os._exit(0)


def apart(call):
    """Call in a process of its own; returns its exit code."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        call()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    # taking down all that was imported is not worth its time
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def name_of(arguments):
    """The tool: name of a script or of a module."""
    return arguments[1] if arguments[0] == '-m' else Path(arguments[0]).name


def shorten(arguments):
    """The same command with fewer processes, images and rounds."""
    while arguments and arguments[0] in ('-u', '-B'):
        arguments = arguments[1:]
    if name_of(arguments) == 'check_configs.py':  # the first config that matches is enough
        tool, *rest = arguments
        pattern = rest.pop(0) if rest and not rest[0].startswith('-') else 'digits'
        found = sorted(path for path in glob.glob('configs/*/*.py')
                       if pattern in path or fnmatch.fnmatch(path, f'*{pattern}*'))
        arguments = [tool, *(found[:1] or [pattern]), *rest]
    arguments = [re.sub(r'^(--nproc[_-]per[_-]node)=\d+$', r'\1=1', argument) for argument in arguments]
    return [*arguments, *LENGTHS.get(name_of(arguments), '').split()]


def run(arguments):
    """Run a script, a module, a line (-c) or standard input (-), as an interpreter does."""
    if name_of(arguments) in SMALL:
        make_configs_small()
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        parsed = parse(self, *args, **kwargs)
        for option in LEFT_OUT:
            if hasattr(parsed, option):
                setattr(parsed, option, False)
        return parsed

    argparse.ArgumentParser.parse_args = parse_args
    first, *rest = arguments
    if first == '-m' and rest[0] == 'pip':
        os.execvp('pip', rest)
    if first in ('-m', '-c', '-'):
        sys.path.insert(0, os.getcwd())
    if first == '-m':
        sys.argv = rest
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    elif first in ('-c', '-'):
        sys.argv = [first, *rest[1:]]
        exec(compile(sys.stdin.read() if first == '-' else rest[0], '<a snippet>', 'exec'), {'__name__': '__main__'})
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        sys.argv = arguments
        runpy.run_path(first, run_name='__main__')


def make_configs_small():
    from plugconv_mm.runtime import read_config, shrink_config
    load_config = read_config.load_config

    def load_small(args):
        cfg = load_config(args)
        randomness = cfg.get('randomness')
        shrink_config.leave_out_weights(cfg)
        shrink_config.make_small(cfg, 'data')
        cfg.randomness = randomness or cfg.randomness
        return cfg

    read_config.load_config = load_small


def outputs_of(arguments):
    """The paths that a command is told to write."""
    paths = [value for option, value in zip(arguments, arguments[1:], strict=False) if option in OUTPUTS]
    return paths + arguments[-1:] * (name_of(arguments) in CONVERTERS)


def look_for_outputs(arguments):
    """Exit code 0 if all is there that a command was told to write."""
    for path in map(Path, outputs_of(arguments)):
        if not path.exists() or (not any(path.iterdir()) if path.is_dir() else not path.stat().st_size):
            print(f'the command ended well, and {path} is not there or empty', file=sys.stderr)
            return 1
    return 0


def prepare(arguments):
    """Make what a command reads and is not there."""
    code = arguments[1] if arguments[0] == '-c' else ''
    # between any two quotes: the code may itself be quoted, in quotes of another kind
    words = re.findall(r'["\'](?=([^"\'\n]+)["\'])', code) if code else arguments[1:]
    words = [word.rpartition('=')[2] for word in words]
    configs = [word for word in words  # and not the tool, where torchrun starts it
               if '::' in word or (word.endswith('.py') and Path(word).parent.name != 'tools')]
    configs += [path for word in words if re.fullmatch(r'[\w-]+', word) for path in glob.glob(f'configs/*/{word}.py')]
    number = 0
    for word in words:
        if word in outputs_of(arguments) or '*' in word:
            continue
        if word.endswith('.pth'):
            if not Path(word).exists() and not re.search(rf'(save|write)\w*\(.*{word}', code):
                config = configs[min(number, len(configs) - 1)] if configs else SLAK
                if '--resume' in arguments:  # more than weights
                    run([arguments[0], config, '--work-dir', 'work_dirs/before'])
                    Path(word).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(Path('work_dirs/before/last_checkpoint').read_text(), word)
                else:
                    make_checkpoint(word, config, name_of(arguments))
            number += 1
        elif word.endswith(EXPORTED) and not code and not Path(word).exists():
            make_exported(word, configs[0] if configs else DETECTOR)
        elif word.lower().endswith(('.jpg', '.jpeg', '.png')) and not Path(word).exists():
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy('data/digits/val/val_00000.jpg', word)
    if name_of(arguments) == 'plot_sparsity.py':
        import tiny_training
        cfg = tiny_training.config()
        cfg.custom_hooks[0].update_frequency = 3
        tiny_training.build(arguments[1], cfg).train()


def make_checkpoint(path, config, tool):
    """Random weights of a config's model, saved the way mmengine does; for the converter, published names."""
    import torch

    from plugconv_mm.runtime.build import build_task
    from plugconv_mm.runtime.read_config import load_config
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if tool == 'convert_official.py':
        import recorded
        torch.save({'model': {key: torch.zeros(shape) for key, shape in recorded.load('parc_mobilenetv2')['keys']}},
                   path)
        return
    named = re.match(r'work_dirs/([^/]+)/', path)  # of a training
    config = next(iter(glob.glob(f'configs/*/{named.group(1)}.py')), config) if named else config
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):
        model, _ = build_task(load_config(argparse.Namespace(
            config=config, cfg_options=None, work_dir=None, launcher='none', local_rank=0)), config)
    torch.save(dict(meta=dict(epoch=0, iter=0), state_dict=model.state_dict()), path)


def make_exported(path, config):
    """A file of a config's model with random weights, at the size of the digits."""
    from plugconv_mm.analysis import build_model
    from plugconv_mm.export import export_inductor, export_onnx
    from plugconv_mm.export.openvino_file import write_openvino
    from plugconv_mm.runtime.read_config import read_config
    model, path = build_model(read_config(config)).eval(), Path(path)
    if path.suffix == '.pt2':
        export_inductor(model, path, (160, 160), uint8=True)
        return
    onnx = path.with_suffix('.onnx')
    export_onnx(model, onnx, (160, 160), uint8=True)
    if path.suffix == '.xml':
        write_openvino(onnx, path)


if __name__ == '__main__':
    serve(sys.argv[1])
