"""What one pass of an image without values shows of the layers of a model."""
import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plugconv_mm.errors import PlugError
from plugconv_mm.ops import ParC2d
from plugconv_mm.ops.kernel_warehouse.warehouse import WarehouseLayer
from plugconv_mm.ops.multiply_adds import OperatorCounter
from plugconv_mm.plugging.attention import TokenMixer, attentions_of, kind_of

Size = tuple[int, int]


@dataclass
class Seen:
    """What a pass showed of a layer.

    Attributes:
        sizes: H and W of the map it worked on, for each call.
        source: The convolution that makes the map of its tokens, where its calls do not give the size.
        changes: Shapes of its input and output without the batch, where they were alone in its calls and not alike.
        channels: Channels of its input.
        macs: Multiply-adds of all calls.
        refused: Why no operator can take the place of a layer that is called, or whose weights are used, like this.
    """
    sizes: list[Size] = field(default_factory=list)
    source: str = ''
    changes: set[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)
    channels: int = 0
    macs: int = 0
    refused: str = ''


def dry_pass(model: nn.Module, names: Iterable[str], prefixes: Mapping[str, int], input_size: Size,
             needed: bool) -> dict[str, Seen]:
    """Run a copy of a model, without memory for its weights, on an image of this size, and watch some layers.

    What comes after an operation that needs values, such as the proposals of a two-stage detector, is not reached.
    Where the call of an attention does not give the size of the map that its tokens form, it is that of the last
    convolution ahead of it, outside of any attention, whose map has as many positions as there are tokens.

    Args:
        model: A model that takes a batch of images, (N, 3, H, W).
        names: The layers.
        prefixes: Numbers of tokens ahead of the map, by the names of the attentions among them.
        input_size: H and W of the image.
        needed: Whether it is an error if the model fails before any of the layers.

    Returns:
        The layers that were reached.

    Raises:
        PlugError: If the model fails before any of the layers, where that is an error.
    """
    shell = without_values(model)
    counter = OperatorCounter()
    watch = _Watch(shell, prefixes, counter)
    for name in names:
        watch.layer(name)
    try:
        with torch.no_grad(), counter, watch:
            shell(torch.empty(1, 3, *input_size, device='meta', dtype=next(shell.parameters()).dtype))
    except Exception as error:  # whatever a model does behind the layers, or without values
        if needed and not any(seen.sizes for seen in watch.seen.values()):
            raise PlugError(f'{type(model).__name__} cannot be run on an image of {input_size[0]}x{input_size[1]} '
                            f'without values, to find the sizes of its maps: {type(error).__name__}: {error}. Give '
                            "numbers in place of 'auto', and grid=(H, W) to rules for attention") from error
    return watch.seen


class _Watch(TorchFunctionMode):
    """Hooks on the layers of a shell, and what they have seen; as a mode, who uses the weights of convolutions."""

    def __init__(self, shell: nn.Module, prefixes: Mapping[str, int], counter: OperatorCounter) -> None:
        super().__init__()
        self._owners: dict[int, set[str]] = defaultdict(set)
        self._called: Counter[str] = Counter()
        self.shell, self.prefixes, self.counter = shell, prefixes, counter
        self.seen: dict[str, Seen] = {}
        self._made: dict[str, Size] = {}  # maps of convolutions; the last of them is the newest
        inner = {id(part) for module in (*attentions_of(shell).values(), *shell.modules())
                 if isinstance(module, TokenMixer) or kind_of(module) for part in module.modules()}
        for name, module in shell.named_modules():
            if isinstance(module, nn.Conv2d) and id(module) not in inner:
                module.register_forward_hook(lambda _, inputs, output, name=name: self._keep(name, output))

    def layer(self, name: str) -> None:
        """Watch a layer."""
        module, seen = self.shell.get_submodule(name), Seen()
        started: list[int] = []

        def begin(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self._called[name] += 1
            self.seen[name] = seen  # in the order of the calls
            started.append(self.counter.macs.total())
            if name in self.prefixes:
                self._attention(name, module, args, kwargs)
            elif args and isinstance(args[0], Tensor) and args[0].dim() == 4:
                seen.sizes.append(tuple(args[0].shape[2:]))
                seen.channels = args[0].shape[1]

        def end(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            self._called[name] -= 1
            seen.macs += self.counter.macs.total() - started.pop()
            shapes = [tuple(t.shape[1:]) if isinstance(t, Tensor) else () for t in (*args, *kwargs.values(), output)]
            if len(shapes) != 2 or len(set(shapes)) > 1 or len(shapes[0]) != 3:
                seen.changes.add((shapes[0], shapes[-1]))

        if name in self.prefixes and kind_of(module).windows:  # type: ignore[union-attr]
            self.shell.get_submodule(name.rpartition('.')[0]).register_forward_pre_hook(
                lambda _, inputs: seen.sizes.append(tuple(inputs[0].shape[1:3])))
        if isinstance(module, nn.Conv2d):
            self._owners[id(module.weight)].add(name)
        module.register_forward_pre_hook(begin, with_kwargs=True, prepend=True)
        module.register_forward_hook(end, with_kwargs=True)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func.__name__ != '__get__':  # an attribute, such as the type
            for arg in args:
                owners = self._owners.get(id(arg), ())
                if owners and not any(self._called[name] for name in owners):
                    for name in owners:
                        self.seen.setdefault(name, Seen()).refused = (
                            'its weight is used by another module, which does not call it: exclude it')
        return func(*args, **kwargs or {})

    def _keep(self, name: str, output: Tensor) -> None:
        self._made.pop(name, None)
        self._made[name] = tuple(output.shape[2:])

    def _attention(self, name: str, attention: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen, kind = self.seen[name], kind_of(attention)
        if kind.windows:  # type: ignore[union-attr]
            seen.channels = args[0].shape[-1]
            return
        try:
            call = kind.read(*args, **kwargs)  # type: ignore[union-attr]
        except PlugError as error:
            seen.refused = str(error)
            return
        seen.channels = call.x.shape[-1]
        if call.size is not None:
            seen.sizes.append(tuple(call.size))
        elif call.x.dim() == 3:
            for source, (height, width) in reversed(self._made.items()):
                if call.x.shape[1] - height * width in (0, self.prefixes[name]):
                    seen.source = source
                    seen.sizes.append((height, width))
                    return


def macs_of(operator: nn.Module, channels: int, sizes: Iterable[Size]) -> int:
    """Count the multiply-adds of an operator on maps (1, channels, H, W) of these sizes.

    ParC counts as Fast-ParC where its backend is 'auto', as in the costs of whole models.
    """
    shell = without_values(operator)
    for module in shell.modules():
        if isinstance(module, ParC2d) and module.backend == 'auto':
            module.backend = 'fft'
    total = 0
    for size in sizes:
        x = torch.empty(1, channels, *size, device='meta', dtype=next(shell.parameters()).dtype)
        for _ in range(2):  # the second time it has what it derives from its weights
            with torch.no_grad(), OperatorCounter() as counter:
                shell(x)
        total += counter.macs.total()
    return total


def without_values(module: nn.Module) -> Any:
    """A copy in evaluation mode without memory for its weights, and those of the warehouses that it draws from."""
    warehouses = {layer.warehouse for layer in module.modules() if isinstance(layer, WarehouseLayer)}
    shell = copy.deepcopy(module, {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device='meta'), requires_grad=False)
        if isinstance(tensor, nn.Parameter) else torch.empty_like(tensor, device='meta')
        for part in (module, *warehouses) for tensor in (*part.parameters(), *part.buffers())})
    shell.eval()  # which returns nothing in backbones of OpenMMLab
    return shell
