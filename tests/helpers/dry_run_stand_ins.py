"""What stands for a dry run, to be imported by the process that runs it."""
import os

from plugconv_mm.runtime.dry_run import DryRunReport


def fails_with_gf(config, data, work_dir, sender):
    sender.send(DryRunReport(str(config), *(('evaluate', 'KeyError: x') if 'gf' in str(config) else ())))


def killed(config, data, work_dir, sender):
    os.kill(os.getpid(), 9)
