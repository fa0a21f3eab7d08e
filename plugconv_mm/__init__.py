"""PlugConv-MM: convolutions with a global view, as plug-ins for OpenMMLab."""
from plugconv_mm.compat import bridge
from plugconv_mm.version import __version__

__all__ = ['__version__']

bridge.install()
