"""What stands for a rehearsal, to be imported by the process that runs it."""
import os

from plugconv_mm.engine.rehearsal import Report


def fails_with_gf(config, data, work_dir, sender):
    sender.send(Report(str(config), *(('evaluate', 'KeyError: x') if 'gf' in str(config) else ())))


def killed(config, data, work_dir, sender):
    os.kill(os.getpid(), 9)
