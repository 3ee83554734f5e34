from collections.abc import Sequence
from typing import Any

__version__: str

class Weights:
    def __init__(self, *, cell: str, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> None: ...
    def invalidate(self) -> None: ...

class OptionWeights:
    def __init__(
        self,
        *,
        cell: str,
        arrays: dict[str, Any],
        connections: dict[str, Any],
        activations: list[tuple[int, float, float]],
        clip: float | None,
        coupled: bool,
        reset_after: bool,
        zoneout_h: float,
        zoneout_c: float,
    ) -> None: ...
    def invalidate(self) -> None: ...

class Stream:
    def __init__(self, weights: Weights, batch: int) -> None: ...
    def step(self, x_t: Any, out: Any = None) -> Any: ...
    def set_state(self, h: Any, c: Any = None) -> None: ...
    @property
    def state(self) -> tuple[Any, ...]: ...

class testing:
    @staticmethod
    def sigmoid(x: Any) -> Any: ...
    @staticmethod
    def tanh(x: Any) -> Any: ...
    @staticmethod
    def fma_peak(dtype_bytes: int, threads: int) -> float: ...
    @staticmethod
    def read_bandwidth(bytes: int, threads: int) -> float: ...

def forward(
    *, weights: Weights, x: Any, h0: Any, c0: Any, training: bool, slots: Any = None, places: Any = None
) -> tuple[Any, Any, Any]: ...
def infer(weights: Weights, x: Any, state: Any) -> tuple[Any, Any] | None: ...
def backward(
    *,
    weights: Weights,
    x: Any,
    h: Any,
    c: Any,
    gates: Any,
    dy: Any,
    dh_n: Any,
    dc_n: Any,
    dw_ih: Any,
    dw_hh: Any,
    db_ih: Any,
    db_hh: Any,
    need_dx: bool,
    overwrite: bool,
    slots: Any = None,
    places: Any = None,
    dcells: Any = None,
) -> tuple[Any, Any, Any]: ...
def dense_forward(*, x: Any, weight: Any, bias: Any, activation: str | None) -> Any: ...
def dense_backward(
    *, x: Any, weight: Any, y: Any, dy: Any, dweight: Any, dbias: Any, activation: str | None, need_dx: bool
) -> Any: ...
def empty(shape: Sequence[int], dtype: Any) -> Any: ...
def copy_rows(out: Any, source: Any, index: Any) -> None: ...
def optimizer_step(
    parameters: list[Any],
    grad: Any,
    before: Any,
    buffers: list[Any],
    rule: str,
    lr: float,
    decay: float = 0,
    keep: float = 1,
    momentum: float = 0,
    beta1: float = 0,
    beta2: float = 0,
    eps: float = 0,
    root_correction: float = 1,
) -> bool: ...
def all_finite(x: Any) -> bool: ...
def sum_of_squares(x: Any) -> float: ...
def norm(x: Any) -> float: ...
def scale(x: Any, factor: float) -> None: ...
def clip(x: Any, limit: float) -> None: ...
def add_scaled(sum: Any, x: Any, factor: float) -> None: ...
def cross_entropy(logits: Any, target: Any, weights: Any, factor: float, derivative: Any) -> float: ...
def add_rows(table: Any, index: Any, rows: Any) -> None: ...
def option_forward(
    *,
    weights: OptionWeights,
    x: Any,
    h0: Any,
    c0: Any,
    training: bool,
    slots: Any,
    recurrent: Any,
    zoneout_h: Any,
    zoneout_c: Any,
) -> tuple[Any, Any, Any]: ...
def option_backward(
    *,
    weights: OptionWeights,
    x: Any,
    h: Any,
    c: Any,
    gates: Any,
    dy: Any,
    dcells: Any,
    dh_n: Any,
    dc_n: Any,
    gradients: dict[str, Any],
    need_dx: bool,
    overwrite: bool,
    slots: Any,
    recurrent: Any,
    zoneout_h: Any,
    zoneout_c: Any,
) -> tuple[Any, Any, Any]: ...
def forward_all(calls: list[dict[str, Any]], *, training: bool, chained: bool) -> list[tuple[Any, Any, Any]]: ...
def backward_all(calls: list[dict[str, Any]], *, chained: bool) -> list[tuple[Any, Any, Any]]: ...
def backward_cut(*, steps: int, batch: int, slots: Any, last: int, wanted: int) -> int: ...
def build_info() -> dict[str, Any]:
    """How this library was built and what it runs on.

    Returns
    -------
    dict
        ``version``, ``compiler``, ``flags``, ``build_type`` and ``asserts`` of the build; ``isas``, the instruction
        sets that this machine has, and ``isa``, the one in use; ``cpu``; ``threads``.
    """

def set_isa(name: str) -> None: ...
def get_num_threads() -> int:
    """How many threads a call may use."""

def set_num_threads(n: int) -> None:
    """Set how many threads a call may use. No result depends on it.

    Parameters
    ----------
    n : int
        At least 1. To begin with it is ``RNNFAST_NUM_THREADS``, or the number of CPUs that the process may use.

    Raises
    ------
    TypeError
        If ``n`` is no integer.
    ValueError
        If it is below 1 or above 256.
    """

def stop_threads() -> None: ...
