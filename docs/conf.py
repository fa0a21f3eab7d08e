"""The documentation as a site: `make docs` builds it into docs/_build/html."""
import importlib
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
CONFIGS = ROOT / 'configs'
sys.path.insert(0, str(ROOT))

from plugconv_mm import __version__  # noqa: E402

project, author = 'PlugConv-MM', 'The PlugConv-MM authors'
version = release = __version__
copyright = author

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.mathjax', 'sphinx.ext.viewcode',
              'sphinx_copybutton', 'sphinx-mathjax-offline']
exclude_patterns = ['_build']
smartquotes_action = 'D'  # dashes alone: messages are looked for with the quotes that they have

# -- Markdown

myst_enable_extensions = ['amsmath', 'dollarmath']
myst_heading_anchors = 4

# -- the API from the docstrings

autodoc_default_options = {'members': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'  # the docstrings give shapes and units
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False  # types stay words, "Sequence[int]", and are not looked up
napoleon_use_rtype = False
napoleon_custom_sections = [('Shape', 'notes_style'), ('Shapes', 'notes_style'), ('Cost', 'notes_style')]
nitpicky = True
# Other packages, which are not looked up over the network.
_OTHERS = 'argparse|collections|mmcv|mmdet|mmengine|mmseg|multiprocessing|numpy|os|pathlib|torch'
nitpick_ignore_regex = [(r'py:.*', rf'({_OTHERS})\..*'),
                        (r'py:class', r'(.*\.)?[A-Z]'),  # type variables
                        (r'py:class', r'dict\[str')]  # of dataclasses, whose annotations are split at commas

# -- the pages

html_theme = 'furo'
html_title = f'PlugConv-MM {version}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True


def load_lazy_names(app):
    """Packages of plug-ins import their classes when they are asked for; autodoc looks at what is there."""
    for name in ('models', 'analysis'):
        package = importlib.import_module(f'plugconv_mm.{name}')
        for member in package.__all__:
            getattr(package, member)


def link_within_site(text, folder, page):
    """Makes links of a text in `folder` work from `page`.

    The README is the index here; one of configs/, named by itself or by its folder, is a page of the families. Links to
    other files, such as a config, stay links to these files.
    """
    def link(match):
        name, target, anchor = match.groups()
        path = Path(os.path.normpath(folder / target))
        if not path.exists():
            return match[0]
        path = path / 'README.md' if path.is_dir() else path
        if path.name == 'README.md' and path.is_relative_to(CONFIGS):
            path = DOCS / 'families' / f'{"index" if path.parent == CONFIGS else path.parent.name}.md'
        elif path == ROOT / 'README.md':
            path = DOCS / 'index.md'
        return f'{name}({os.path.relpath(path, page.parent)}{anchor})'

    return re.sub(r'(\[[^\]]*\])\(([^)\s#:]+)(#[^)\s]*|)\)', link, text)


def read_page(app, docname, source):
    """Puts the READMEs of configs/ in the place of the ``include`` that names them, and makes links work.

    MyST's own ``include`` cannot follow links that name folders, which these READMEs have.
    """
    page = DOCS / f'{docname}.md'

    def include(match):
        readme = (page.parent / match[1]).resolve()
        app.env.note_dependency(readme)
        return link_within_site(readme.read_text(encoding='utf-8'), readme.parent, page)

    text = link_within_site(source[0], page.parent, page)
    source[0] = re.sub(r'^```\{include\} (\S+/README\.md)\n```$', include, text, flags=re.MULTILINE)


def setup(app):
    app.connect('builder-inited', load_lazy_names)
    app.connect('source-read', read_page)
