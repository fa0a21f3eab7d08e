"""The choice of a backend: measured, or of the one that the model of costs expects to be the fastest."""
from collections.abc import Callable

from torch import Tensor

from plugconv_mm.ops.mechanisms.tuning import fastest
from plugconv_mm.ops.parc.backends import BACKENDS, Geometry
from plugconv_mm.ops.parc.cost import Workload, cheapest_backend, expected_times
from plugconv_mm.ops.parc.product import Plan, apply, prepare

# Backends that are expected to take so many times as long as the best are not tried: a convolution as long as a large
# map takes seconds.
HOPELESS = 20


def choose_backend(workload: Workload, x: Tensor, weight: Tensor, geometry: Geometry) -> str:
    """The name of the backend for a call with a map (B, C, H, W) and a weight."""
    if measured := fastest('ParC', workload, _forms(workload, geometry), (x, weight), workload.training):
        return measured
    return cheapest_backend(workload)


def _forms(workload: Workload, geometry: Geometry) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The product in each backend that may be the fastest, the most exact first."""
    times = expected_times(workload)
    return {name: _form(name, workload, geometry) for name in BACKENDS if times[name] <= HOPELESS * min(times.values())}


def _form(name: str, workload: Workload, geometry: Geometry) -> Callable[[Tensor, Tensor], Tensor]:
    backend = BACKENDS[name]
    plan = Plan(geometry, name, backend, workload.channels_last, workload.dtype,
                backend.compute_dtype(workload.dtype))
    kept: list[Tensor] = []

    def product(x: Tensor, weight: Tensor) -> Tensor:
        if workload.training:
            return apply(plan, x, prepare(plan, weight, None, None)[0], None)
        if not kept:  # as a layer keeps it in evaluation
            kept.append(prepare(plan, weight, None, None)[0])
        return apply(plan, x, kept[0], None)

    return product
