"""For ``custom_imports`` of a config that trains in float64, so that the order of sums does not count."""
import torch

torch.set_default_dtype(torch.float64)
