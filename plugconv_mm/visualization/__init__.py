"""Pictures for people: predictions beside ground truth, and the curves of a training."""
from plugconv_mm.visualization.curves import plot_curves, read_scalars
from plugconv_mm.visualization.grids import draw_instances, draw_label_map, save_grid

__all__ = ['draw_instances', 'draw_label_map', 'plot_curves', 'read_scalars', 'save_grid']
