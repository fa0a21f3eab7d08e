"""Static quantisation of ONNX files to int8, for ONNX Runtime."""
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.export.last_layers import last_layers

_QUANTIZED = ['Conv', 'MatMul', 'Gemm']


def quantize_onnx(path: Path, out: Path, batches: Iterable[torch.Tensor]) -> None:
    """Write a file whose convolutions and matrix products are in int8.

    Ranges of the activations are those on the batches; weights have a scale for each channel. The last layers, and what
    follows them, as the choice of boxes, stay in float32.

    Args:
        path: File of :func:`plugconv_mm.export.export_onnx`.
        out: The file to write.
        batches: Images as the file takes them.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """The batches, one after the other, as the quantiser asks for them."""

        def __init__(self) -> None:
            self.batches: Iterator[torch.Tensor] = iter(batches)

        def get_next(self) -> dict | None:
            images = next(self.batches, None)
            return None if images is None else dict(input=images.numpy())

    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as folder:
        prepared, quantized = Path(folder, 'prepared.onnx'), Path(folder, 'quantized.onnx')
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        nodes = [(node.name, node.op_type, node.input, node.output) for node in onnx.load(prepared).graph.node]
        quantize_static(str(prepared), str(quantized), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        op_types_to_quantize=_QUANTIZED, nodes_to_exclude=last_layers(nodes, _QUANTIZED),
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        model = onnx.load(quantized)
        onnx.helper.set_model_props(model, {entry.key: entry.value for entry in onnx.load(
            path, load_external_data=False).metadata_props})
        with atomic_write(out) as file:
            file.write(model.SerializeToString())
