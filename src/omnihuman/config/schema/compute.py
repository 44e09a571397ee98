"""How clips are worked on and a stage is computed: this changes no table, and no weight but by rounding.

No step of the graph depends on it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Compute:
    """What the processes are; how many of them there are and where they run comes from the environment."""

    accelerator: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""
    strategy: str = "single"
    """`single` process, or DeepSpeed: `zero2` divides gradients and optimizer over ranks, `zero3` also weights."""
    offload: str = "none"
    """What lies in the memory of the CPU instead of the GPU's: `none`, `optimizer`, or `all` (weights too, zero3)."""
    processes_per_node: int = 1
    """Where `$OMNIHUMAN_PROCESSES` does not say."""
    accumulate: int = 1
    """Micro-steps in which the samples of a step are taken, one after another, where they do not fit at once."""
    max_tokens_per_pack: int | None = None
    """The most that one micro-step may ask of a rank's memory; a stage whose samples might not fit is refused at its
    start. None: no bound."""
    loader_workers: int = 0
    """Processes beside each rank that make its packs ahead; 0: the rank makes them itself, when it needs them."""
    profile_steps: int = 0
    """Batches of the first process of which PyTorch's profiler writes a trace; 0 for none."""
    pool: str = "local"
    """Where clips are cut, measured and encoded: `local` processes of this machine, or `ray`."""
