"""Tiny random networks saved in the layouts in which the real ones are published."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("<pad>", "</s>", "<unk>", "<s>", "a", "red", "shirt", "hair", "one", "two")
_TEXT = {"vocab_size": len(WORDS), "num_layers": 2, "num_heads": 2, "d_model": 16, "d_kv": 8, "d_ff": 32}


def save_vae(folder: Path, **other: object) -> None:
    """An `AutoencoderKLWan` of 4 x 8 x 8 with 16 channels and 14k parameters."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(0)
    sizes = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    settings = {**sizes, "temperal_downsample": [False, True, True], **other}
    AutoencoderKLWan(**settings).save_pretrained(folder)  # pyright: ignore[reportArgumentType]


def save_tokenizer(folder: Path, begins: bool = False, padding_side: str = "right") -> None:
    """Words as tokens, and one special token: T5's at the end, Gemma's at the beginning."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A" if begins else "$A </s>", special_tokens=[("<s>", 3), ("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>",
        padding_side=padding_side, model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip


def save_t5(folder: Path) -> None:
    """Encoder and tokenizer in one folder."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    T5EncoderModel(T5Config(**_TEXT, feed_forward_proj="gated-gelu")).save_pretrained(folder)
    save_tokenizer(folder)


def save_whole_t5(folder: Path) -> None:
    """With the decoder that nobody here needs, as google/t5-v1_1 and its like are published."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(**_TEXT, feed_forward_proj="gated-gelu")).save_pretrained(folder)
    save_tokenizer(folder)


def save_umt5(folder: Path) -> None:
    """As in the pipeline of Wan 2.1."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    UMT5EncoderModel(UMT5Config(**_TEXT)).save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")


def save_t5gemma2(folder: Path) -> None:
    """As in the pipeline of Motif-Video: an encoder with a tower for pictures, padding on the left."""
    from transformers import T5Gemma2Encoder, T5Gemma2EncoderConfig

    torch.manual_seed(0)
    T5Gemma2Encoder(T5Gemma2EncoderConfig(**_t5gemma2_parts())).save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer", begins=True, padding_side="left")


def save_whole_t5gemma2(folder: Path) -> None:
    """With the decoder, as Google publishes it."""
    from transformers import T5Gemma2Config, T5Gemma2Model

    torch.manual_seed(0)
    parts = _t5gemma2_parts()
    T5Gemma2Model(T5Gemma2Config(encoder=parts, decoder=parts["text_config"], image_token_index=9)).save_pretrained(
        folder
    )
    save_tokenizer(folder, begins=True, padding_side="left")


def _t5gemma2_parts() -> dict:
    text = {
        "dropout_rate": 0.0, "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    return {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 1, "image_token_index": 9}


def save_wav2vec2(folder: Path, **other: object) -> None:
    """The published convolutions (a feature of 400 samples every 320), two layers of 16 channels."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, **other,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def save_whisper(folder: Path) -> None:
    """Encoder and decoder of two layers, and how it hears."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Both towers, as OpenAI's are published: pictures of 32 pixels in patches of 8, embeddings of 12."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8, "projection_dim": 12}
    text = sizes | {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)).save_pretrained(folder)


def save_blip(folder: Path) -> None:
    """A captioner of one layer, whose tokenizer knows `WORDS`; pictures of 32 pixels in patches of 8."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"pad_token_id": 0, "sep_token_id": 1, "eos_token_id": 1, "bos_token_id": 3}
    text = sizes | special | {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 16}
    config = BlipConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    network = BlipForConditionalGeneration(config)
    for weight in network.parameters():  # as small as they begin, all pictures would look alike
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.7)
    network.save_pretrained(folder)
    save_tokenizer(folder)
