"""Modules around the functions that take several layers."""
import torch
from torch import nn

from plugconv_mm.ops.mechanisms.batch_norm import conv_bn
from plugconv_mm.ops.mlp import residual_mlp


class ConvBN(nn.Module):

    def __init__(self, conv):
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(8)

    def forward(self, x):
        return conv_bn(self.conv, self.norm, x)


class ResidualMLP(nn.Module):

    def __init__(self):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma, self.drop_path = nn.Parameter(torch.rand(8)), nn.Identity()

    def forward(self, x):
        return residual_mlp(x, x, self.norm, self.fc1, self.fc2, self.gamma, self.drop_path)
