"""Text: the prompt's real tokens, of all samples one after the other; the base's own text stream carries them."""

from torch import Tensor


def pack_text(text: Tensor, mask: Tensor) -> tuple[Tensor, list[int]]:
    """Text [B, L, text width] with mask [B, L] to the real tokens [M, text width] and how many each sample has."""
    return text[mask], mask.sum(dim=1).tolist()
