"""A convolution with its norm and its activation."""
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.batch_norm import conv_bn


class ConvNormAct(nn.Sequential):
    """A convolution, its norm and, where a third module is given, its activation.

    A BatchNorm that uses its running statistics is folded into the convolution. The modules are given as to
    ``nn.Sequential``, whose parameters' names they have.
    """

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, *act = self
        x = conv_bn(conv, norm, x)
        return act[0](x) if act else x
