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
        start: How it starts.
        reason: Why it was skipped; empty where it was not.
    """
    name: str
    old: str
    new: str
    before: int
    after: int
    start: str
    reason: str = ''


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
        rows = [('layer', 'was', 'is', 'parameters before', 'after', 'start')]
        rows += [(layer.name, layer.old, layer.new or 'as it was', f'{layer.before:,}', f'{layer.after:,}',
                  layer.start if not layer.reason else f'skipped: {layer.reason}') for layer in self.layers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        lines = ['  '.join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]))
                 for row in rows]
        before, after = (sum(getattr(layer, part) for layer in self.layers) for part in ('before', 'after'))
        return '\n'.join([*lines, f'{len(self.plugged)} of {len(self.layers)} layers plugged, {before:,} parameters '
                                  f'in them before and {after:,} after'])
