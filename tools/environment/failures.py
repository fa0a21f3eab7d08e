"""Why a step of the set-up failed, and what to try."""
import re

# Well-known ways for a step to fail: what its output says, why, and what to try. The first match counts, so the
# consequences (no version found) come after their causes (no network).
FAILURES = (
    (r'No space left on device|Errno 28\b|Disk quota exceeded', 'the disk is full.',
     'free about 8 GB for {venv}, or name another folder with VENV=…; "{python} -m pip cache purge" empties pip\'s '
     'cache, which may hold 3 GB.'),
    (r'ensurepip is not available|No module named \'?(venv|ensurepip)', 'this Python comes without its venv module.',
     'install it (on Debian and Ubuntu "apt install python{version}-venv"), or name another Python with PYTHON=….'),
    (r'Permission denied|Errno 13\b|Read-only file system|Errno 30\b', 'a file or folder may not be written.',
     'see that {venv} belongs to you and is writable, or name another folder with VENV=….'),
    (r'DO NOT MATCH THE HASHES|BadZipFile|Wheel .* is invalid', 'a download arrived damaged.',
     'run "{python} -m pip cache purge", then the same command again.'),
    (r'Python\.h: No such file', 'the C headers of Python are missing.',
     'install them (on Debian and Ubuntu "apt install python{version}-dev").'),
    (r'MemoryError|Cannot allocate memory|Killed signal terminated program', 'the memory ran out.',
     'close other programs, or compile with fewer jobs at a time (MAX_JOBS=1), and run the same command again.'),
    (r'CERTIFICATE_VERIFY_FAILED|SSLError', 'the certificate of the package registry was not accepted.',
     "behind a company proxy, point PIP_CERT at your organisation's certificate file; also check the clock."),
    (r'ProxyError|Tunnel connection failed|Proxy Authentication', 'the proxy refused the connection.',
     'check HTTPS_PROXY, then run the same command again.'),
    (r'[Tt]emporary failure in name resolution|Name or service not known|nodename nor servname|NewConnectionError|'
     r'Failed to establish a new connection|Connection (refused|reset|aborted|broken)|Network is unreachable|'
     r'ConnectTimeoutError|ReadTimeoutError|[Rr]ead timed out|IncompleteRead',
     'the package registry cannot be reached.',
     'check the network (and HTTPS_PROXY or PIP_INDEX_URL if you use them), then run the same command again.'),
    (r'ResolutionImpossible|conflicting dependencies', 'the packages asked for do not fit together.',
     'take requirements/ as it is in the repository ("git status requirements" shows changes); if PIP_INDEX_URL names '
     'a mirror, see that it has the pinned versions.'),
    (r'No matching distribution found for (?P<what>\S+)|'
     r'Could not find a version that satisfies the requirement (?P<what2>\S+)',
     'the package registry offers no {what} for Python {version} on this platform.',
     'use Python 3.11 (PYTHON=…) on 64-bit Linux; if PIP_INDEX_URL names a mirror, see that it is complete.'),
)


class SetupError(Exception):
    """A sentence on what went wrong and one on what to try."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


def explain(output: str, returncode: int, **names: object) -> tuple[str, str]:
    """Returns why a command failed and what to try, from its output and exit status.

    Args:
        output: Everything that the command printed.
        returncode: Its exit status, negative for a signal.
        **names: What the advice may name: ``venv``, ``python`` and ``version``.
    """
    for pattern, reason, advice in FAILURES:
        match = re.search(pattern, output)
        if match:
            what = next((group for group in match.groupdict().values() if group), '')
            return reason.format(what=what, **names), advice.format(what=what, **names)
    if returncode == -9:
        return 'the system ended it, probably because the memory ran out.', 'close other programs and run it again.'
    return f'it ended with status {returncode}.', 'read the output above, then run the same command again.'
