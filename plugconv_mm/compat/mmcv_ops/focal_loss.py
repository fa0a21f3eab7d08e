"""Focal loss (Lin et al., ICCV 2017) of sigmoids and of a softmax."""
import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype


def _sigmoid_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logit signed towards the true answer, whether that is yes, and the factor of each entry, (N, C)."""
    check_shape('sigmoid_focal_loss', 'input', input, (None, None))
    check_shape('sigmoid_focal_loss', 'target', target, (input.size(0), ))
    dtype = compute_dtype('sigmoid_focal_loss', input=input)
    classes = input.size(1)
    positive = target[:, None] == torch.arange(classes, device=input.device)
    logit = input.to(dtype)
    factor = torch.full_like(logit, 1 - alpha).masked_fill(positive, alpha)
    if weight.numel():
        check_shape('sigmoid_focal_loss', 'weight', weight, (classes, ))
        # A row that belongs to no class (background) has no entry in weight and counts once.
        labelled = (target >= 0) & (target < classes)
        factor = factor * weight.to(dtype)[target.clamp(0, classes - 1)].where(labelled, 1)[:, None]
    return torch.where(positive, logit, -logit), positive, factor


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Write the focal loss of logits (N, C), entry by entry, into ``output``.

    A target from 0 to C - 1 is a class; any other value (C is mmdet's background) is negative for every class. An
    entry of ``weight`` (C, or empty) multiplies the rows of its class.
    """
    signed, _, factor = _sigmoid_terms(input, target, weight, alpha)
    output.copy_(-factor * torch.sigmoid(-signed)**gamma * F.logsigmoid(signed))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Write the slope of each entry of the loss into ``grad_input`` (N, C)."""
    signed, positive, factor = _sigmoid_terms(input, target, weight, alpha)
    miss = torch.sigmoid(-signed)
    slope = factor * miss**gamma * (gamma * torch.sigmoid(signed) * F.logsigmoid(signed) - miss)
    grad_input.copy_(torch.where(positive, slope, -slope))


def _softmax_terms(softmax: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the probability of each row's class and the row's factor, both (N, )."""
    operator = 'softmax_focal_loss'
    check_shape(operator, 'input', softmax, (None, None))
    check_shape(operator, 'target', target, (softmax.size(0), ))
    dtype, classes = compute_dtype(operator, input=softmax), softmax.size(1)
    # Reading the targets on a GPU would make every call wait for the device; there, indexing fails by itself.
    if target.numel() and target.device.type == 'cpu' and int(target.max()) >= classes:
        raise ValueError(f'{operator}: a target must be a class, 0 to {classes - 1}, or negative for a row that does '
                         f'not count, got {int(target.max())}')
    label = target.clamp(min=0)
    factor = alpha * (target >= 0).to(dtype)
    if weight.numel():
        check_shape(operator, 'weight', weight, (classes, ))
        factor = factor * weight.to(dtype)[label]
    return softmax.to(dtype).gather(1, label[:, None])[:, 0], factor


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Write the focal loss of each row of ``input``, a softmax (N, C), into ``output`` (N, ).

    A row whose target is negative has none. An entry of ``weight`` (C, or empty) multiplies the rows of its class.
    """
    hit, factor = _softmax_terms(input, target, weight, alpha)
    output.copy_(-factor * (1 - hit)**gamma * hit.clamp(min=torch.finfo(torch.float32).tiny).log())


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Write the slope by the logits into ``grad_input`` (N, C), and each row's common factor into ``buff`` (N, )."""
    hit, factor = _softmax_terms(input, target, weight, alpha)
    miss, logarithm = 1 - hit, hit.clamp(min=torch.finfo(torch.float32).tiny).log()
    # Below gamma 1 the power has no bound at a certain answer, whose slope is 0.
    power = (miss**(gamma - 1)).where(miss > 0, 0)
    common = factor * (gamma * power * hit * logarithm - miss**gamma)
    truth = target[:, None] == torch.arange(input.size(1), device=input.device)
    buff.copy_(common)
    grad_input.copy_(common[:, None] * (truth.to(common) - input.to(common)))
