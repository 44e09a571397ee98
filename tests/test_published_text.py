"""Published text encoders on tiny random weights, against the padded call of the published pipelines."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_checkpoints import WORDS, save_t5, save_t5gemma2, save_umt5, save_whole_t5, save_whole_t5gemma2

from omnihuman.encoders.factory import Choice, text_encoder
from omnihuman.encoders.t5 import PublishedText
from omnihuman.errors import UserError

CHECKPOINTS = {
    "t5": ("t5", save_t5),
    "t5 with decoder": ("t5", save_whole_t5),
    "umt5 in a pipeline": ("t5", save_umt5),
    "t5gemma2 in a pipeline": ("t5gemma2", save_t5gemma2),
    "t5gemma2 with decoder": ("t5gemma2", save_whole_t5gemma2),
}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    name, save = CHECKPOINTS[request.param]
    folder = tmp_path_factory.mktemp("text")
    save(folder)
    return name, folder


def test_tokens_equal_those_of_the_padded_and_masked_call(checkpoint: tuple[str, Path]) -> None:
    """As diffusers' Motif pipeline does it, with the class that transformers itself chooses for the whole folder."""
    import transformers

    name, folder = checkpoint
    encoder = PublishedText(name, str(folder), max_tokens=512)
    ours = encoder.encode("a red shirt two")
    whole = next(part for part in (folder / "text_encoder", folder) if part.is_dir())
    reference = transformers.AutoModel.from_pretrained(whole).eval()
    network = reference.encoder if hasattr(reference, "decoder") else reference
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer" if whole != folder else folder)
    tokens = tokenizer("a red shirt two", padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = network(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)[0][0]
    assert tokens.attention_mask.sum() == 5 and ours.dtype == np.float32
    np.testing.assert_allclose(ours, states[tokens.attention_mask[0].bool()].numpy(), rtol=0, atol=1e-5)


def test_lengths(checkpoint: tuple[str, Path]) -> None:
    name, folder = checkpoint
    encoder = text_encoder(Choice(name, str(folder)), 4)
    assert (encoder.name, encoder.width) == (name, 16)
    assert encoder.encode("").shape == (1, 16)
    assert encoder.encode("a red").shape == (3, 16)
    assert encoder.encode(" ".join(WORDS[4:])).shape == (4, 16)
    assert np.abs(encoder.encode("a red shirt")[1] - encoder.encode("a red hair")[1]).max() > 1e-4, "both ways"


def test_a_tokenizer_that_adds_nothing_still_gives_a_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    save_t5(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.post_processor = None  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = text_encoder(Choice("t5", str(tmp_path)), 8)
    assert encoder.encode("").shape == (1, 16) and encoder.encode("red").shape == (1, 16)


def test_the_other_family_and_a_missing_tokenizer_are_refused(tmp_path: Path) -> None:
    save_t5(tmp_path)
    with pytest.raises(UserError, match=r"text_encoder=t5gemma2: .* of type t5, expected one of t5gemma2"):
        text_encoder(Choice("t5gemma2", str(tmp_path)), 8)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        text_encoder(Choice("t5", str(tmp_path)), 8)
