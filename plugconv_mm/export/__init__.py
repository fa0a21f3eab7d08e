"""Models as ONNX files that any runtime takes, checked against PyTorch in ONNX Runtime.

The operators choose their ONNX form themselves while they are exported: ParC becomes a product with its circulant
matrix, or with DFT matrices where it mixes channels; the global filter of gnConv becomes products with DFT matrices;
the dynamic convolutions of KernelWarehouse become products with windows of the map. So
``torch.onnx.export(model, ..., dynamo=True)`` takes each of them, too. This package adds what a whole model needs:

- ``tasks``: the part of a model that is exported, by its task
- ``detectors``: detectors of mmdet as functions from images to boxes, labels and masks
- ``queries``, ``mask_queries``, ``sparse``: those of them with queries
- ``mask_kernels``, ``matrix_nms``: those with masks of the whole image
- ``candidates``, ``suppression``, ``regions``, ``deformable``: what they are made of, of sizes that do not depend on
  the images
- ``replaced``: names that stand for something else for a while
- ``tracing``: what stands for code of OpenMMLab that an exporter cannot follow
- ``matching``, ``comparison``: the comparison of detections, and of all outputs
- ``pixels``, ``pasting``: the preparation of images, and masks of pixels, in the graph
- ``preconditions``: checks before the export
- ``prepared``: what any export begins with
- ``onnx_file``, ``inductor_file``: the export to ONNX, and to compiled code
- ``onnx_int8``, ``openvino_file``, ``last_layers``: what ONNX files are made
- ``file_metadata``: what a user of the file has to know
- ``runtimes``: files as functions
- ``exported_model``, ``side_by_side``: the test of a config on files, beside PyTorch
- ``placement``: how images are brought to one size
- ``report``: the result
"""
from plugconv_mm.export.comparison import LABELS, TOLERANCE
from plugconv_mm.export.inductor_file import export_inductor
from plugconv_mm.export.onnx_file import OPSET, export_onnx
from plugconv_mm.export.report import ExportReport

__all__ = ['LABELS', 'OPSET', 'TOLERANCE', 'ExportReport', 'export_inductor', 'export_onnx']
