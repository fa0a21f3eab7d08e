"""Random values in place of those that a module begins with, so that nothing is zero or one."""
import torch


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.5, generator=generator)
    return module


def randomise_state(module):
    """Parameters and buffers; variances stay above zero."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
            if name.endswith('running_var'):
                value.abs_().add_(0.5)
    return module
