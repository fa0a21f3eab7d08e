"""Figures: predictions beside ground truth, curves of a training, costs of models, receptive fields, heat maps."""
from plugconv_mm.visualization.curves import plot_curves, read_scalars
from plugconv_mm.visualization.grids import draw_instances, draw_label_map, save_figure, save_grid
from plugconv_mm.visualization.heat_maps import plot_contributions, save_overlays
from plugconv_mm.visualization.scatter import plot_costs
from plugconv_mm.visualization.sparsity_curves import plot_sparsity, read_sparsity

__all__ = ['draw_instances', 'draw_label_map', 'plot_contributions', 'plot_costs', 'plot_curves', 'plot_sparsity',
           'read_scalars', 'read_sparsity', 'save_figure', 'save_grid', 'save_overlays']
