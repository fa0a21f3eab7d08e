"""The version of PlugConv-MM, read by setup.py and exported as ``plugconv_mm.__version__``."""
__version__ = '0.1.0'
