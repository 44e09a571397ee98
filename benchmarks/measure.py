"""Timing of two calls against each other, memory, and where the time goes; used by the benchmarks beside it."""

import platform
import re
import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Call = Callable[[], object]
Clock = Callable[[], float]
"""Seconds of this machine, or `time.process_time` where other work would be measured too."""
_CLASSES = (
    # The first that fits the name of a kernel (GPU) or operator (CPU).
    ("elementwise", r"^triton_(poi|red|per|for)"),  # named after all that was fused, attention's neighbours too
    ("attention", r"flash|fmha|attention|varlen|softmax"),
    ("matrix products", r"gemm|cutlass|nvjet|xmma|cublas|conv|aten::(add|b|)mm|mkldnn|::linear"),
    ("elementwise", r"triton|elementwise|vectorized|reduce|norm|copy|cat|index|scatter|gather|fill|foreach|graph_\d"),
    ("elementwise", r"aten::(add|mul|sub|div|gelu|silu|stack|sum|mean|neg|to|cos|sin|zero|pow|rsqrt|where|exp)"),
    ("memory", r"memcpy|memset"),
)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one call takes as another, from calls in turn."""

    median: float
    smallest: float
    largest: float
    seconds: float
    """Median of the call that the other is measured against."""
    other_seconds: float
    repetitions: int

    def __str__(self) -> str:
        return (
            f"{self.median:.3f} ({self.smallest:.3f} to {self.largest:.3f}, {self.repetitions} pairs;"
            f" {1000 * self.seconds:.1f} ms against {1000 * self.other_seconds:.1f} ms)"
        )


def ratio(call: Call, other: Call, repetitions: int, device: torch.device, clock: Clock = time.perf_counter) -> Ratio:
    """`other`'s time over `call`'s: median of the ratios of pairs; the two take turns in coming first."""
    for warm_up in (call, other):
        seconds(warm_up, device)
    pairs = []
    for number in range(repetitions):
        if number % 2:
            later = seconds(other, device, clock)
            pairs.append((seconds(call, device, clock), later))
        else:
            pairs.append((seconds(call, device, clock), seconds(other, device, clock)))
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(of) for of in zip(*pairs, strict=True))
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), ours, theirs, repetitions)


def median_seconds(call: Call, repetitions: int, device: torch.device) -> float:
    """Median, after one call that does not count."""
    seconds(call, device)
    return statistics.median(seconds(call, device) for _ in range(repetitions))


def seconds(call: Call, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Of one call, with all that it leaves to the GPU."""
    synchronize(device)
    start = clock()
    call()
    synchronize(device)
    return clock() - start


def synchronize(device: torch.device) -> None:
    """Waits for the GPU, if there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(call: Call, device: torch.device) -> int:
    """Most memory that tensors held at one time while a call ran, with weights; GPU only."""
    synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated()


class LiveBytes(TorchDispatchMode):
    """The most memory that tensors made inside held at one time; works on tensors without memory too."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts the storage of every new tensor until it is let go."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def saved_bytes(forward: Call, weights: set[int]) -> int:
    """Memory that a forward pass keeps for its backward pass, without the weights, whose addresses are given."""
    kept: dict[int, int] = {}
    tensors = []  # held until the end, lest an address be used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    del output
    return sum(kept.values())


def time_shares(call: Call, device: torch.device, num_named: int = 8) -> dict[str, object]:
    """Shares of one call's time by class of kernel (CPU: of operator), and the kernels that take most."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        wall = seconds(call, device)
    spent: dict[str, float] = {}
    for event in profiler.key_averages():
        if on_gpu and str(event.device_type).endswith("CUDA"):
            spent[event.key] = spent.get(event.key, 0.0) + event.self_device_time_total / 1e6
        elif not on_gpu:
            spent[event.key] = spent.get(event.key, 0.0) + event.self_cpu_time_total / 1e6
    total = sum(spent.values()) or 1.0
    shares: dict[str, float] = {}
    for name, of_name in spent.items():
        shares[class_of(name)] = shares.get(class_of(name), 0.0) + of_name / total
    ordered = sorted(spent.items(), key=lambda item: -item[1])[:num_named]
    return {
        "shares": dict(sorted(shares.items(), key=lambda item: -item[1])),
        "busy_share_of_wall": total / wall,
        "largest": [{"name": name[:120], "share": of_name / total} for name, of_name in ordered],
    }


def class_of(kernel: str) -> str:
    """Which class of work a kernel or operator belongs to, by its name."""
    return next((name for name, pattern in _CLASSES if re.search(pattern, kernel.lower())), "other")


def machine(device: torch.device) -> str:
    """In words: processor or GPU, threads, versions."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    model = re.search(r"model name\s*: (.+)", _cpu_info())
    name = model[1] if model else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def rounded(value: object) -> object:
    """For a report: dataclasses as mappings, numbers to four digits."""
    if isinstance(value, Ratio):
        return rounded(asdict(value))
    if isinstance(value, dict):
        return {key: rounded(of_key) for key, of_key in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
