"""Progress lines of the set-up: what a command is at, and for how long."""
import re


def activity(output: str) -> str:
    """Returns what a running command is at, from its output so far: ninja's count or pip's last word."""
    counts = re.findall(r'^ *\[(\d+)/(\d+)\]', output, re.MULTILINE)
    if counts:
        return 'compiled {} of {} files'.format(*counts[-1])
    words = re.findall(r'^ *(Collecting|Downloading|Processing|Building wheel for|Installing) ([^\s(]+)', output,
                       re.MULTILINE)
    if not words:
        return ''
    verb, what = words[-1]
    return 'unpacking the packages' if verb == 'Installing' else f'{verb} {what.rsplit("/", 1)[-1]}'


def duration(seconds: float) -> str:
    """Formats seconds as people say them."""
    if seconds < 10:
        return f'{seconds:.1f} s'
    return f'{seconds:.0f} s' if seconds < 60 else f'{int(seconds) // 60} min {int(seconds) % 60} s'
