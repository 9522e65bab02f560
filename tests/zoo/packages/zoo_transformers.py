"""Hugging Face transformers 4: its Flax models, in small configurations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import transformers as hf
from models import Specimen, floats, integers

WORDS = 61

# The three ways in which configurations name the same things.
BERT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
BART = {
    "vocab_size": WORDS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
GPT = {
    "vocab_size": WORDS,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "n_inner": 48,
}
T5 = {"vocab_size": WORDS, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = {"embedding_size": 12, "hidden_sizes": [12, 16, 20], "depths": [1, 2, 1]}


def call(model: Any, names: tuple[str, ...], variables: Any, *inputs: Any, **static: Any) -> Any:
    """The public `model(...)` and its first result: hidden states beside it would stay as wide."""
    params = variables if "batch_stats" in variables else variables["params"]
    output = model(**dict(zip(names, inputs, strict=True)), params=params, **static)
    return output.get("logits", output.get("logits_per_image", output.to_tuple()[0]))


def specimen(
    build: Callable[..., Any], config: Any, shape: Any = (1, 1), **inputs: Any
) -> Specimen:
    """A model, with its variables left abstract."""
    model = build(config, _do_init=False)
    params = jax.eval_shape(lambda: model.init_weights(jax.random.key(0), shape))
    return bound(model, params, **inputs)


def composite(build: Callable[..., Any], config: Any, shape: Any, **inputs: Any) -> Specimen:
    """A model of two, which cannot be made without variables."""
    model = build(config, input_shape=shape)
    return bound(model, model.params, **inputs)


def bound(model: Any, params: Any, **inputs: Any) -> Specimen:
    """The specimen of a model and its parameters, perhaps with batch statistics."""
    variables = dict(params) if "batch_stats" in params else {"params": dict(params)}
    return Specimen(
        fn=partial(call, model, tuple(inputs)),
        variables=variables,
        inputs=tuple(inputs.values()),
    )


def encoder(build: Any, config: Any) -> Specimen:
    """A model of tokens with an attention mask."""
    mask = np.ones((2, 10), np.int32)
    mask[1, 7:] = 0
    return specimen(build, config, input_ids=integers(WORDS, 2, 10), attention_mask=mask)


def seq2seq(build: Any, config: Any) -> Specimen:
    """An encoder and a decoder of tokens."""
    return specimen(
        build,
        config,
        input_ids=integers(WORDS, 2, 10),
        decoder_input_ids=integers(WORDS, 2, 7, seed=1),
    )


def image(build: Any, config: Any, size: int = 32) -> Specimen:
    """A model of images, channels first as its authors have it."""
    return specimen(
        build, config, (1, size, size, config.num_channels), pixel_values=floats(2, 3, size, size)
    )


def clip() -> Specimen:
    config = hf.CLIPConfig(
        text_config=dict(BERT, eos_token_id=WORDS - 1, bos_token_id=0),
        vision_config=VIT,
        projection_dim=24,
    )
    return specimen(
        hf.FlaxCLIPModel,
        config,
        ((1, 1), (1, 32, 32, 3)),
        input_ids=integers(WORDS, 2, 10),
        pixel_values=floats(2, 3, 32, 32),
    )


def whisper(build: Any) -> Specimen:
    config = hf.WhisperConfig(
        **BART, max_source_positions=20, max_target_positions=20, num_mel_bins=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
        begin_suppress_tokens=None, suppress_tokens=None,
    )  # fmt: skip
    inputs = {"input_features": floats(2, 16, 40)}
    if build is not hf.FlaxWhisperForAudioClassification:
        inputs["decoder_input_ids"] = integers(WORDS, 2, 7)
    return specimen(build, config, (1, 16, 40), **inputs)


def wav2vec2(build: Any, **options: Any) -> Specimen:
    config = hf.Wav2Vec2Config(
        **BERT, conv_dim=(24, 24, 24), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 2),
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, mask_time_prob=0.0,
        do_stable_layer_norm=True, feat_extract_norm="layer", apply_spec_augment=False, **options,
    )  # fmt: skip
    return specimen(build, config, (1, 400), input_values=floats(2, 400))


def vision_text() -> Specimen:
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf.ViTConfig(**VIT), hf.BertConfig(**BERT), projection_dim=24
    )
    return composite(
        hf.FlaxVisionTextDualEncoderModel,
        config,
        ((1, 1), (1, 32, 32, 3)),
        input_ids=integers(WORDS, 2, 10),
        pixel_values=floats(2, 3, 32, 32),
    )


def encoder_decoder() -> Specimen:
    config = hf.EncoderDecoderConfig.from_encoder_decoder_configs(
        hf.BertConfig(**BERT), hf.GPT2Config(**GPT)
    )
    config.decoder.add_cross_attention = True
    return composite(
        hf.FlaxEncoderDecoderModel,
        config,
        ((1, 10), (1, 7)),
        input_ids=integers(WORDS, 2, 10),
        decoder_input_ids=integers(WORDS, 2, 7, seed=1),
    )


def vision_encoder_decoder() -> Specimen:
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**VIT), hf.GPT2Config(**GPT)
    )
    config.decoder.add_cross_attention = True
    return composite(
        hf.FlaxVisionEncoderDecoderModel,
        config,
        ((1, 32, 32, 3), (1, 1)),
        pixel_values=floats(2, 3, 32, 32),
        decoder_input_ids=integers(WORDS, 2, 7, seed=1),
    )


def speech_encoder_decoder() -> Specimen:
    speech = hf.Wav2Vec2Config(
        **BERT, conv_dim=(24, 24), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        do_stable_layer_norm=True, feat_extract_norm="layer", add_adapter=False,
    )  # fmt: skip
    config = hf.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        speech, hf.BartConfig(**BART)
    )
    config.decoder.add_cross_attention = True
    return composite(
        hf.FlaxSpeechEncoderDecoderModel,
        config,
        ((1, 400), (1, 1)),
        inputs=floats(2, 400),
        decoder_input_ids=integers(WORDS, 2, 7, seed=1),
    )


def distilbert() -> Any:
    return hf.DistilBertConfig(
        vocab_size=WORDS, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64
    )


def big_bird(kind: str) -> Any:
    return hf.BigBirdConfig(
        **BERT, attention_type=kind, block_size=4, num_random_blocks=1, use_bias=True
    )


MODELS: dict[str, Callable[[], Specimen]] = {
    "albert": lambda: encoder(hf.FlaxAlbertForMaskedLM, hf.AlbertConfig(**BERT, embedding_size=20)),
    "bert": lambda: encoder(hf.FlaxBertForMaskedLM, hf.BertConfig(**BERT)),
    "bert-classifier": lambda: encoder(
        hf.FlaxBertForSequenceClassification, hf.BertConfig(**BERT, num_labels=3)
    ),
    "bert-questions": lambda: encoder(hf.FlaxBertForQuestionAnswering, hf.BertConfig(**BERT)),
    "big-bird": lambda: encoder(hf.FlaxBigBirdForMaskedLM, big_bird("original_full")),
    "distilbert": lambda: encoder(hf.FlaxDistilBertForMaskedLM, distilbert()),
    "electra": lambda: encoder(
        hf.FlaxElectraForPreTraining, hf.ElectraConfig(**BERT, embedding_size=20)
    ),
    "roberta": lambda: encoder(hf.FlaxRobertaForMaskedLM, hf.RobertaConfig(**BERT)),
    "roberta-prelayernorm": lambda: encoder(
        hf.FlaxRobertaPreLayerNormForMaskedLM, hf.RobertaPreLayerNormConfig(**BERT)
    ),
    "roformer": lambda: encoder(
        hf.FlaxRoFormerForMaskedLM, hf.RoFormerConfig(**BERT, embedding_size=32)
    ),
    "xlm-roberta": lambda: encoder(hf.FlaxXLMRobertaForMaskedLM, hf.XLMRobertaConfig(**BERT)),
    "bloom": lambda: encoder(
        hf.FlaxBloomForCausalLM,
        hf.BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=4),
    ),
    "gemma": lambda: encoder(
        hf.FlaxGemmaForCausalLM,
        hf.GemmaConfig(**BERT, num_key_value_heads=1, head_dim=8),
    ),
    "gpt2": lambda: encoder(hf.FlaxGPT2LMHeadModel, hf.GPT2Config(**GPT)),
    "gpt-neo": lambda: encoder(
        hf.FlaxGPTNeoForCausalLM,
        hf.GPTNeoConfig(
            vocab_size=WORDS,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            window_size=4,
            attention_types=[[["global", "local"], 1]],
        ),
    ),
    "gptj": lambda: encoder(hf.FlaxGPTJForCausalLM, hf.GPTJConfig(**GPT, rotary_dim=4)),
    "llama": lambda: encoder(
        hf.FlaxLlamaForCausalLM, hf.LlamaConfig(**BERT, num_key_value_heads=2)
    ),
    "mistral": lambda: encoder(
        hf.FlaxMistralForCausalLM,
        hf.MistralConfig(**BERT, num_key_value_heads=2, sliding_window=4),
    ),
    "opt": lambda: encoder(
        hf.FlaxOPTForCausalLM,
        hf.OPTConfig(**(BERT | {"ffn_dim": 48}), word_embed_proj_dim=24),
    ),
    "xglm": lambda: encoder(
        hf.FlaxXGLMForCausalLM,
        hf.XGLMConfig(
            vocab_size=WORDS,
            d_model=32,
            num_layers=2,
            attention_heads=4,
            ffn_dim=48,
            max_position_embeddings=64,
        ),
    ),
    "bart": lambda: seq2seq(hf.FlaxBartForConditionalGeneration, hf.BartConfig(**BART)),
    "blenderbot": lambda: seq2seq(
        hf.FlaxBlenderbotForConditionalGeneration, hf.BlenderbotConfig(**BART)
    ),
    "blenderbot-small": lambda: seq2seq(
        hf.FlaxBlenderbotSmallForConditionalGeneration, hf.BlenderbotSmallConfig(**BART)
    ),
    "marian": lambda: seq2seq(
        hf.FlaxMarianMTModel, hf.MarianConfig(**BART, pad_token_id=0, decoder_start_token_id=0)
    ),
    "mbart": lambda: seq2seq(hf.FlaxMBartForConditionalGeneration, hf.MBartConfig(**BART)),
    "pegasus": lambda: seq2seq(hf.FlaxPegasusForConditionalGeneration, hf.PegasusConfig(**BART)),
    "t5": lambda: seq2seq(hf.FlaxT5ForConditionalGeneration, hf.T5Config(**T5)),
    "t5-encoder": lambda: encoder(hf.FlaxT5EncoderModel, hf.T5Config(**T5)),
    "mt5": lambda: seq2seq(
        hf.FlaxMT5ForConditionalGeneration, hf.MT5Config(**T5, decoder_start_token_id=0)
    ),
    "longt5-local": lambda: seq2seq(
        hf.FlaxLongT5ForConditionalGeneration,
        hf.LongT5Config(**T5, local_radius=3, encoder_attention_type="local"),
    ),
    "longt5-global": lambda: seq2seq(
        hf.FlaxLongT5ForConditionalGeneration,
        hf.LongT5Config(
            **T5, local_radius=3, global_block_size=4, encoder_attention_type="transient-global"
        ),
    ),
    "beit": lambda: image(hf.FlaxBeitForImageClassification, hf.BeitConfig(**VIT)),
    "beit-relative": lambda: image(
        hf.FlaxBeitForImageClassification,
        hf.BeitConfig(**VIT, use_relative_position_bias=True, use_mean_pooling=False),
    ),
    "clip": clip,
    "clip-text": lambda: encoder(
        hf.FlaxCLIPTextModel, hf.CLIPTextConfig(**BERT, eos_token_id=2, bos_token_id=0)
    ),
    "clip-vision": lambda: image(hf.FlaxCLIPVisionModel, hf.CLIPVisionConfig(**VIT)),
    "dinov2": lambda: image(
        hf.FlaxDinov2ForImageClassification, hf.Dinov2Config(**VIT, mlp_ratio=2)
    ),
    "dinov2-swiglu": lambda: image(
        hf.FlaxDinov2Model, hf.Dinov2Config(**VIT, mlp_ratio=2, use_swiglu_ffn=True)
    ),
    "vit": lambda: image(hf.FlaxViTForImageClassification, hf.ViTConfig(**VIT)),
    "resnet": lambda: image(
        hf.FlaxResNetForImageClassification, hf.ResNetConfig(**STAGES, layer_type="bottleneck")
    ),
    "resnet-basic": lambda: image(
        hf.FlaxResNetForImageClassification, hf.ResNetConfig(**STAGES, layer_type="basic")
    ),
    "regnet-y": lambda: image(
        hf.FlaxRegNetForImageClassification,
        hf.RegNetConfig(**STAGES, groups_width=4, layer_type="y"),
    ),
    "whisper": lambda: whisper(hf.FlaxWhisperForConditionalGeneration),
    "whisper-classifier": lambda: whisper(hf.FlaxWhisperForAudioClassification),
    "wav2vec2-ctc": lambda: wav2vec2(hf.FlaxWav2Vec2ForCTC),
    "wav2vec2-pretraining": lambda: wav2vec2(
        hf.FlaxWav2Vec2ForPreTraining,
        codevector_dim=16,
        num_codevectors_per_group=6,
        proj_codevector_dim=12,
    ),
    "vision-text": vision_text,
    "encoder-decoder": encoder_decoder,
    "vision-encoder-decoder": vision_encoder_decoder,
    "speech-encoder-decoder": speech_encoder_decoder,
}
