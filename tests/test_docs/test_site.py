"""The documentation as `make docs` builds it: no warnings, and every link, image and formula in place."""
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip('sphinx', reason='needs Sphinx: make docs installs it')

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Targets of links and images of a page, its anchors, and what its blocks of formulas hold."""

    def __init__(self, file):
        super().__init__()
        self.targets, self.anchors, self.formulas, self.problems = [], set(), 0, 0
        self.text = file.read_text(encoding='utf-8')
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        classes = (attrs.get('class') or '').split()
        self.anchors.update(filter(None, (attrs.get('id'), attrs.get('name'))))
        self.targets += [attrs[key] for key in ('href', 'src') if attrs.get(key)]
        self.formulas += 'math' in classes
        self.problems += 'system-message' in classes or 'problematic' in classes


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-d', out / 'trees', ROOT / 'docs', out / 'html'],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / 'html'


@pytest.fixture(scope='module')
def pages(site):
    return {path: Page(path) for path in site.rglob('*.html')}


def targets(site, path, page):
    """What a page refers to: the file, and the anchor in it."""
    for target in page.targets:
        if not re.match(r'[a-z]+:', target):
            name, _, anchor = unquote(target).partition('#')
            yield target, (path.parent / name.partition('?')[0]).resolve() if name else path, anchor


def test_links_images_and_styles_are_there(site, pages):
    for path, page in pages.items():
        for target, file, anchor in targets(site, path, page):
            assert file.is_file(), f'{path.relative_to(site)} refers to {target}'
            assert not anchor or file.suffix != '.html' or anchor in pages[file].anchors, (
                f'{path.relative_to(site)}: there is no {target}')


def test_every_page_is_reached_from_the_first(site, pages):
    reached, front = set(), [site / 'index.html']
    while front:
        path = front.pop()
        if path in pages and path not in reached:
            reached.add(path)
            front += [file for _, file, _ in targets(site, path, pages[path])]
    written = {site / path.relative_to(ROOT / 'docs').with_suffix('.html')
               for path in (ROOT / 'docs').rglob('*.md') if '_build' not in path.parts}
    assert written <= reached


def test_no_page_shows_an_error(site, pages):
    for path, page in pages.items():
        assert not page.problems and '[docutils]' not in page.text, path.relative_to(site)


def test_formulas_are_drawn_offline(site, pages):
    with_formulas = [page for page in pages.values() if page.formulas]
    assert with_formulas
    for page in with_formulas:
        scripts = [target for target in page.targets if 'mathjax' in target.lower()]
        assert scripts and all(not target.startswith('http') for target in scripts)
    assert (site / '_static/mathjax/tex-chtml.js').is_file()


def test_readmes_of_the_configs_are_pages(site):
    """With links to the configs, whose files come along, and without what MyST would leave of an ``include``."""
    text = (site / 'families/parc.html').read_text(encoding='utf-8')
    assert re.search(r'href="\.\./_downloads/\w+/parc-resnet50_8xb128_in1k\.py"', text)
    assert '<table' in text and '{include}' not in text
    assert 'href="../checked_configs.html"' in (site / 'families/index.html').read_text(encoding='utf-8')


def test_the_reference_has_the_operators(site):
    text = (site / 'api/ops.html').read_text(encoding='utf-8')
    from plugconv_mm import ops
    for name in ops.__all__:
        assert f'id="plugconv_mm.ops.{name}"' in text
