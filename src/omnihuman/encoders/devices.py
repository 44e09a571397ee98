"""On which devices frozen networks run while clips are encoded."""

import torch

from omnihuman.errors import UserError


def devices_for(accelerator: str) -> list[str]:
    """The devices of `compute.accelerator`: every GPU that is seen, or `cpu`.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    count = 0 if accelerator == "cpu" else torch.cuda.device_count()
    if accelerator == "cuda" and not count:
        raise UserError("compute.accelerator is cuda, but PyTorch sees no GPU here; set it to auto or cpu")
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]
