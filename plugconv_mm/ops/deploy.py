"""Deployment forms of models and state dicts, without the branches and norms that only training needs."""
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from plugconv_mm.errors import CheckpointError
from plugconv_mm.ops.large_kernel import DecomposedLargeKernelConv2d, LargeKernelConv2d
from plugconv_mm.ops.mechanisms.large_branches import LargeBranches

_BRANCH = re.compile(r'((?:.*\.)?)((?:vertical|horizontal|large_conv|small_conv)\.(?:conv|bn)\.\w+)')


def switch_to_deploy(model: nn.Module) -> None:
    """Bring every operator in `model`, a whole detector for example, into its deployment form, in place.

    :class:`DecomposedLargeKernelConv2d` and :class:`LargeKernelConv2d` alone have such a form, wherever they are, also
    inside a gnConv. ParC, KernelWarehouse and H-MHSA hold nothing that inference does not need, and stay as they are. A
    second call changes nothing.

    Running statistics are folded, so the output becomes, and stays, that of evaluation mode, within rounding, even if
    the model is in training mode. The mode is kept, and so is ``requires_grad``: the folded convolutions can be
    trained further, without normalisation.

    Args:
        model: Any module.

    Raises:
        ValueError: If a normalisation is not a BatchNorm with running statistics, or if a layer of a large kernel is
            wrapped, parametrised or hooked.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from plugconv_mm.ops import DecomposedLargeKernelConv2d, switch_to_deploy
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), DecomposedLargeKernelConv2d(8, kernel_size=31)).eval()
        >>> x = torch.rand(2, 3, 20, 40)
        >>> y = net(x)
        >>> switch_to_deploy(net)
        >>> list(net.state_dict())[2:]
        ['1.vertical.weight', '1.vertical.bias', '1.horizontal.weight', '1.horizontal.bias']
        >>> torch.allclose(net(x), y, atol=1e-4)
        True
    """
    for module in model.modules():
        if isinstance(module, LargeBranches):
            module.switch_to_deploy()


def deploy_state_dict(state_dict: Mapping[str, Tensor], eps: float = 1e-5) -> dict[str, Tensor]:
    """Compute the state dict that a model has after :func:`switch_to_deploy` from the one it had before.

    Large kernels are found by their names, under any prefix. All other entries are passed on, as are large kernels
    that are deployed already.

    Args:
        state_dict: State dict of a model, or of a part of one.
        eps: The batch norms' eps, which a state dict does not hold; PyTorch's default is 1e-5.

    Raises:
        CheckpointError: If a large kernel lacks a branch or the running statistics of a BatchNorm.

    Example:
        >>> from plugconv_mm.ops import DecomposedLargeKernelConv2d, deploy_state_dict
        >>> list(deploy_state_dict(DecomposedLargeKernelConv2d(8, kernel_size=31).state_dict()))
        ['vertical.weight', 'vertical.bias', 'horizontal.weight', 'horizontal.bias']
    """
    branches: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        if match := _BRANCH.fullmatch(key):
            branches.setdefault(match[1], {})[match[2]] = value
    folded = {prefix: _fold(prefix, part, eps) for prefix, part in branches.items()
              if 'vertical.conv.weight' in part or 'large_conv.conv.weight' in part}
    deployed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        match = _BRANCH.fullmatch(key)
        deployed.update(folded[match[1]] if match and match[1] in folded else {key: value})
    return deployed


def _fold(prefix: str, part: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Fold the parameters of one large kernel, under `prefix`, in the type of its weights."""
    module: LargeBranches
    if 'vertical.conv.weight' in part:
        weight = part['vertical.conv.weight']
        channels, _, kernel_size, small_kernel = weight.shape
        module = DecomposedLargeKernelConv2d(channels, kernel_size, small_kernel, lambda c: nn.BatchNorm2d(c, eps))
    else:
        weight, small = part['large_conv.conv.weight'], part.get('small_conv.conv.weight')
        channels, _, kernel_size, _ = weight.shape
        module = LargeKernelConv2d(channels, kernel_size, None if small is None else small.shape[2],
                                   lambda c: nn.BatchNorm2d(c, eps))
    module.to(torch.promote_types(weight.dtype, torch.float32))
    try:
        module.load_state_dict(part)
    except RuntimeError as error:
        raise CheckpointError(f'the large kernel {prefix!r} is not made of branches with a BatchNorm each, and cannot '
                              f'be folded: {" ".join(str(error).split())}') from error
    module.switch_to_deploy()
    return {prefix + key: value.to(weight.dtype) for key, value in module.state_dict().items()}
