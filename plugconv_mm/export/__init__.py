"""Models as ONNX files that any runtime takes, checked against PyTorch in ONNX Runtime.

The operators choose their ONNX form themselves while they are exported: ParC becomes a product with its circulant
matrix, or with DFT matrices where it mixes channels; the global filter of gnConv becomes products with DFT matrices;
the dynamic convolutions of KernelWarehouse become products with windows of the map. So
``torch.onnx.export(model, ..., dynamo=True)`` takes each of them, too. This package adds what a whole model needs:

- :mod:`plugconv_mm.export.tasks`: the part of a model that is exported, by its task
- :mod:`plugconv_mm.export.preconditions`: checks before the export
- :mod:`plugconv_mm.export.onnx_file`: the export, and the writing of the file
- :mod:`plugconv_mm.export.onnx_runtime`: the comparison with PyTorch in ONNX Runtime
- :mod:`plugconv_mm.export.report`: the result
"""
from plugconv_mm.errors import ExportError
from plugconv_mm.export.onnx_file import TOLERANCE, export_onnx
from plugconv_mm.export.report import ExportReport

__all__ = ['TOLERANCE', 'ExportError', 'ExportReport', 'export_onnx']
