"""Files of OpenVINO, made of ONNX files."""
import json
import os
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from torch import Tensor

from plugconv_mm.errors import ExportError
from plugconv_mm.export.last_layers import last_layers

PRECISIONS = ('float32', 'bfloat16', 'int8')
METADATA, PRECISION = 'plugconv_mm_metadata', 'plugconv_mm_precision'  # entries of the file
_QUANTIZED = {'Convolution', 'GroupConvolution', 'MatMul'}


def write_openvino(path: Path, out: Path, precision: str = 'float32', batches: Iterable[Tensor] = ()) -> None:
    """Write an ONNX file as the pair of files of OpenVINO, ``NAME.xml`` and ``NAME.bin``, with its metadata.

    Args:
        path: File of :func:`plugconv_mm.export.export_onnx`.
        out: The ``.xml`` to write.
        precision: In which it is computed: 'float32'; 'bfloat16', where the processor has it; or 'int8', by NNCF.
        batches: Images as the file takes them, on which the ranges of int8 are measured.

    Raises:
        ExportError: A package is missing.
    """
    try:
        import openvino
        if precision == 'int8':
            import nncf
    except ImportError as error:
        raise ExportError(f"{error.name} is not installed: pip install 'plugconv-mm[openvino]'") from error
    import onnx
    model = openvino.convert_model(str(path))
    images = list(batches)
    if precision == 'int8':
        # The last layers, and boxes and their choice, which other operators make, stay in float32.
        others = sorted({node.get_type_name() for node in model.get_ops()} - _QUANTIZED)
        nodes = [(node.get_friendly_name(), node.get_type_name(),
                  [value.get_node().get_friendly_name() for value in node.input_values()], [node.get_friendly_name()])
                 for node in model.get_ordered_ops()]
        quantize = partial(
            nncf.quantize, model, nncf.Dataset(images, lambda image: image.numpy()), subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,  # activations have a zero of their own, as SiLU's need
            ignored_scope=nncf.IgnoredScope(last_layers(nodes, _QUANTIZED), types=others, validate=False))
        try:
            model = quantize()
        except ValueError:
            # It takes the position embedding of ParC, which is added behind a convolution, for the convolution's bias.
            model = quantize(advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True))
    entries = onnx.load(path, load_external_data=False).metadata_props
    model.set_rt_info(json.dumps({entry.key: json.loads(entry.value) for entry in entries}), [METADATA])
    model.set_rt_info(precision, [PRECISION])
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as folder:
        openvino.save_model(model, Path(folder, out.name), compress_to_fp16=False)
        for suffix in ('.bin', '.xml'):
            os.replace(Path(folder, out.name).with_suffix(suffix), out.with_suffix(suffix))
