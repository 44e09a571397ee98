"""Text: the prompt's tokens, projected to the model's width, form the second stream of the MMDiT."""

from torch import Tensor, nn


class TextCondition(nn.Module):
    """Two-layer projection of frozen text embeddings (OmniHuman-1, sec. 3.1)."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(text_width, width)
        self.activation = nn.GELU(approximate="tanh")
        self.linear_2 = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        """[B, L, text width] to [B, L, D]."""
        return self.linear_2(self.activation(self.linear_1(text)))
