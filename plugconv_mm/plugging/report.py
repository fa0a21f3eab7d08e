"""What plugging changed, layer by layer."""
from dataclasses import dataclass, field


@dataclass
class Plugged:
    """One layer that was replaced, or skipped.

    Attributes:
        name: Its full name.
        old: The layer.
        new: The operator; empty where it was skipped.
        before: Parameters of the layer.
        after: Parameters of what is there now; cells that layers share are counted with the first of them.
        start: How it starts, and what that leaves different.
        reason: Why it was skipped; empty where it was not.
        macs_before: Multiply-adds of all calls of the layer for an image of the input size, where they are known.
        macs_after: Multiply-adds of what is there now.
    """
    name: str
    old: str
    new: str
    before: int
    after: int
    start: str
    reason: str = ''
    macs_before: int | None = None
    macs_after: int | None = None


@dataclass
class PlugReport:
    """The layers that rules meant.

    Attributes:
        layers: One entry for each, in the order of the model.
    """
    layers: list[Plugged] = field(default_factory=list)

    @property
    def plugged(self) -> list[str]:
        """The names of the layers that were replaced."""
        return [layer.name for layer in self.layers if not layer.reason]

    def __str__(self) -> str:
        counted = any(layer.macs_before is not None for layer in self.layers)
        rows = [['layer', 'was', 'is', 'parameters before', 'after', 'multiply-adds before', 'after', 'start']]
        rows += [[layer.name, layer.old, layer.new or 'as it was', f'{layer.before:,}', f'{layer.after:,}',
                  _millions(layer.macs_before), _millions(layer.macs_after),
                  layer.start if not layer.reason else f'skipped: {layer.reason}'] for layer in self.layers]
        if not counted:
            rows = [[*row[:5], row[-1]] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        lines = ['  '.join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]))
                 for row in rows]
        total = f'{len(self.plugged)} of {len(self.layers)} layers plugged, ' \
                f'{sum(layer.before for layer in self.layers):,} parameters in them before and ' \
                f'{sum(layer.after for layer in self.layers):,} after'
        known = [layer for layer in self.layers if layer.macs_before is not None and layer.macs_after is not None]
        if known:
            total += f', {_millions(sum(layer.macs_before or 0 for layer in known))} multiply-adds before and ' \
                     f'{_millions(sum(layer.macs_after or 0 for layer in known))} after'
            if len(known) < len(self.layers):
                total += f' in the {len(known)} that a pass reaches'
        return '\n'.join([*lines, total])


def _millions(macs: int | None) -> str:
    return '?' if macs is None else f'{macs / 1e6:,.1f}M'
