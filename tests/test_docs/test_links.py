"""Links and images in the README, the documentation and the configs' pages lead somewhere."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (
    *ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'configs').rglob('README.md'))
    if '_build' not in path.parts)


def without_blocks(page):
    return re.sub(r'^ *(```+).*?^ *\1$', '', (ROOT / page).read_text(encoding='utf-8'), flags=re.M | re.S)


def anchors(page):
    """Of the headings, as MyST and the forges make them: words in small letters, joined by hyphens."""
    headings = (re.sub(r'[^\w\- ]', '', heading.lower())
                for heading in re.findall(r'^#+ +(.*?)\s*$', without_blocks(page), re.M))
    return {heading.replace(' ', '-') for heading in headings}


def links(page):
    """Targets of links and images, but for those on the web."""
    for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]+`', '', without_blocks(page))):
        if '://' not in target:
            path, _, anchor = target.partition('#')
            yield target, (ROOT / page).parent / path if path else ROOT / page, anchor


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_headings(page):
    for target, path, anchor in links(page):
        assert path.exists(), f'{page} links to {target}, which is not there'
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT)), f'{page}: there is no heading for {target}'


def test_links_are_found():
    """What the other test looks at."""
    assert len(list(links('configs/parc/README.md'))) > 20
    assert 'detector.png' in {path.name for _, path, _ in links('README.md')}


def test_every_page_is_in_a_table_of_contents():
    listed = {'index'}
    for page in PAGES:
        if page.startswith('docs/'):
            text = (ROOT / page).read_text(encoding='utf-8')
            for block in re.findall(r'^```\{toctree\}\n(.*?)^```$', text, re.M | re.S):
                for entry in re.findall(r'^(?!:)(\S+)$', block, re.M):
                    listed.add(str((Path(page).parent / entry).relative_to('docs')))
    there = {page.removeprefix('docs/').removesuffix('.md') for page in PAGES if page.startswith('docs/')}
    assert listed == there
