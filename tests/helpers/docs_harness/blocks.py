"""What the README and the pages of the documentation show: fenced blocks, and commands within the text."""
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[3]
SHELL, PYTHON = ('shell', 'bash', 'sh', 'console'), ('python', )
OUTPUT = ('', 'text')  # nothing to run
_CODE_DIRECTIVES = ('code-block', 'code', 'sourcecode')
_FENCE = re.compile(r'^\s*(?:>\s*)?(`{3,}|~{3,})\s*(\S*)\s*(\S*)')
_SPAN = re.compile(r'(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)', re.S)
# What a line has to begin with to be something for the shell.
_COMMAND = re.compile(r'(\$ )?(\w+=\S+ )*(python3?|bash|sh|make|pip|apt|git|srun|torchrun|tensorboard) [^\s=]|'
                      r'--cfg-options \S')


@dataclass(frozen=True)
class Block:
    """Something shown.

    Attributes:
        page (str): The file, from the repository's root.
        line (int): Of the first line of ``text``.
        language (str): As the fence gives it.
        text (str): Without indentation.
    """
    page: str
    line: int
    language: str
    text: str

    @property
    def place(self):
        return f'{self.page}:{self.line}'


def pages():
    """The files, from the repository's root."""
    docs = (path for path in (ROOT / 'docs').rglob('*.md') if path.relative_to(ROOT / 'docs').parts[0][0] not in '_.')
    return [str(path.relative_to(ROOT)) for path in
            (ROOT / 'README.md', *sorted(docs), *sorted((ROOT / 'configs').rglob('README.md')))]


def read(page):
    """All blocks of a page; code spans that are commands come as blocks of the language 'inline'."""
    return sorted(_read(page, 1, (ROOT / page).read_text(encoding='utf-8').splitlines()), key=lambda b: b.line)


def _read(page, first, lines):
    prose, number = [], 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if not fence:
            prose.append(lines[number])
            number += 1
            continue
        marks, language, argument = fence.groups()
        end = next((i for i in range(number + 1, len(lines)) if re.fullmatch(
            rf'\s*(>\s*)?{marks[0]}{{{len(marks)},}}\s*', lines[i])), len(lines))
        inside = lines[number + 1:end]
        prose += [''] * (end + 1 - number)
        if language.startswith('{') and language.strip('{}') not in _CODE_DIRECTIVES:
            yield from _read(page, first + number + 1, inside)
        else:
            start = number + 1
            if language.startswith('{'):  # MyST's code-block, with options on its first lines
                language = argument
                while inside and re.match(r'\s*(:[\w-]+:.*)?$', inside[0]):
                    inside, start = inside[1:], start + 1
            margin = min((len(line) - len(line.lstrip()) for line in inside if line.strip()), default=0)
            yield Block(page, first + start, language.strip('{}'), '\n'.join(line[margin:] for line in inside))
        number = end + 1
    text = '\n'.join(prose)
    for span in _SPAN.finditer(text):
        content = ' '.join(span.group(2).split())
        if _COMMAND.match(content):
            yield Block(page, first + text.count('\n', 0, span.start()), 'inline', content)


def looks_like_commands(block):
    """Whether a block that is said to be output has something for the shell in it."""
    return any(_COMMAND.match(line) for line in block.text.splitlines())


def commands(block):
    """The commands of a block one by one: each a block of its own, with continued lines, loops and here-documents.

    What comes before a command and matters to it (``cd``, ``export``, variables) is put in front of it.
    """
    pending, start, before = [], block.line, []
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if block.language == 'console' and not pending:
            if not line.startswith('$ '):
                continue
            line = line[2:]
        if not pending:
            start = number
            if not line.strip() or line.lstrip().startswith('#'):
                continue
        pending.append(line)
        text = '\n'.join(pending)
        if line.endswith('\\') or not _is_complete(text):
            continue
        yield replace(block, line=start, text='\n'.join([*before, text]))
        if re.match(r'(cd|export|\w+=\S*$)\b', text) or '&& cd ' in text:
            before.append(text)
        pending = []
    if pending:  # half a command; the shell says what is wrong with it
        yield replace(block, line=start, text='\n'.join([*before, *pending]))


def _is_complete(text):
    opened = re.search(r'<<-?\s*["\']?(\w+)', text)
    if opened and not re.search(rf'^\s*{opened.group(1)}$', text, re.M):
        return False
    quiet = re.sub(r'<[a-z][^<>]*>|[\[\]]', '', text)  # of what is not yet filled in
    return subprocess.run(['bash', '-n'], input=quiet, text=True, capture_output=True).returncode == 0
