"""What lies between the backbone and the heads of a detector."""
from plugconv_mm.compat.packages import plug_ins

__getattr__, __all__ = plug_ins(__name__, hor_fpn=['HorFPN'])
