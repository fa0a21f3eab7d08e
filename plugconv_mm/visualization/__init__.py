"""Pictures for people: predictions beside ground truth, the curves of a training, and its sparsity."""
from plugconv_mm.visualization.curves import plot_curves, read_scalars
from plugconv_mm.visualization.grids import draw_instances, draw_label_map, save_grid
from plugconv_mm.visualization.sparsity import plot_sparsity, read_sparsity

__all__ = ['draw_instances', 'draw_label_map', 'plot_curves', 'plot_sparsity', 'read_scalars', 'read_sparsity',
           'save_grid']
