"""Models as ONNX files that any runtime takes, checked against PyTorch in ONNX Runtime.

The operators choose their ONNX form themselves while they are exported: ParC becomes a product with its circulant
matrix, or with DFT matrices where it mixes channels; the global filter of gnConv becomes products with DFT matrices;
the dynamic convolutions of KernelWarehouse become products with windows of the map. So
``torch.onnx.export(model, ..., dynamo=True)`` takes each of them, too. This package adds what a whole model needs:

- ``tasks``: the part of a model that is exported, by its task
- ``detectors``: detectors of mmdet as functions from images to boxes, labels and masks
- ``queries``, ``mask_queries``, ``sparse``: those of them with queries
- ``candidates``, ``suppression``, ``regions``: what they are made of, of sizes that do not depend on the images
- ``tracing``: what stands for code of OpenMMLab that an exporter cannot follow
- ``matching``: the comparison of detections
- ``preconditions``: checks before the export
- ``onnx_file``: the export, and the writing of the file
- ``onnx_runtime``: the comparison with PyTorch in ONNX Runtime
- ``report``: the result
"""
from plugconv_mm.export.onnx_file import TOLERANCE, export_onnx
from plugconv_mm.export.report import ExportReport

__all__ = ['TOLERANCE', 'ExportReport', 'export_onnx']
