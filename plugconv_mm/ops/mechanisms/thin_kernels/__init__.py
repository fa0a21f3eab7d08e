"""Forms of depthwise convolutions with thin long kernels."""
