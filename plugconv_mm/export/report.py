"""The result of an export."""
from dataclasses import dataclass
from pathlib import Path


@dataclass
class ExportReport:
    """The file that an export wrote, and how it compares with PyTorch.

    Attributes:
        path: The file.
        part: The part of the model that it holds, as a phrase for people.
        input: The shape of the input, whose first entry is 'batch'.
        outputs: Name and shape of each output.
        difference: The largest difference from PyTorch, in standard deviations of PyTorch's output; of labels of
            pixels, the part of them that differs; of detections, the largest difference of a score.
        torch_ms: Median time of one image in PyTorch, in milliseconds.
        other_ms: Median time of one image in the runtime, in milliseconds.
        compared: How many detections were compared; None for what is no detector.
        runtime: Name of the runtime.
    """
    path: Path
    part: str
    input: tuple
    outputs: dict[str, tuple]
    difference: float
    torch_ms: float
    other_ms: float
    compared: int | None
    runtime: str
