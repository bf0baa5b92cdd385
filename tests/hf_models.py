"""Small models of transformers with seeded random weights, as their publishers save them."""

import torch
import transformers


def save_pictures(folder, kind, image_processor=None):
    """A model of pictures and its image processor. Returns the model."""
    torch.manual_seed(7)
    configs = {
        "convnextv2": lambda: transformers.ConvNextV2Config(
            hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]
        ),
        "resnet": lambda: transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]
        ),
        "dinov2": lambda: transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, mlp_ratio=2
        ),
        "mobilenet_v2": lambda: transformers.MobileNetV2Config(depth_multiplier=0.25),
        "bert": lambda: transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
        "vit": lambda: transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
    }
    model = transformers.AutoModel.from_config(configs[kind]()).eval()
    # Weights of new layers are nearly zero, and would hide a wrong input.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    processor = image_processor or transformers.BitImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}
    )
    processor.save_pretrained(folder)
    return model


def save_ast(folder, **extractor):
    """An Audio Spectrogram Transformer of 1.28 s and its feature extractor. Returns the model."""
    torch.manual_seed(8)
    config = transformers.ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=128,
    )
    model = transformers.ASTForAudioClassification(config).eval()
    model.save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=128, **extractor).save_pretrained(folder)
    return model


WORDS = ("a", "dog", "barks", "rain", "the", "violin")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def save_tokenizer(folder, longest=16):
    """A tokenizer of whole words, which begins and ends a text as the models expect it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)


TEXT = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IMAGE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def _shake(model):
    """Make the weights larger: those of new layers give nearly equal vectors for all inputs."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def save_clip(folder, kind="clip"):
    """A CLIP or SigLIP for squares of 32 pixels and texts of 16 tokens. Returns the model."""
    torch.manual_seed(9)
    config_class = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}[kind]
    text = TEXT | {"max_position_embeddings": 16, "projection_size": 16, "projection_dim": 16}
    config = config_class(text_config=text, vision_config=IMAGE | {"projection_dim": 16})
    if kind == "clip":
        config.projection_dim = 16
    model = _shake(transformers.AutoModel.from_config(config))
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    if kind == "clip":
        processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size)
    else:
        processor = transformers.SiglipImageProcessorPil(size=size)
    processor.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_clap(folder):
    """A small CLAP for 1 s of sound and texts of 16 tokens. Returns the model."""
    torch.manual_seed(10)
    audio = {
        "window_size": 4,
        "num_mel_bins": 32,
        "spec_size": 64,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "hidden_size": 16,
        "projection_dim": 16,
    }
    text = TEXT | {"max_position_embeddings": 20, "projection_dim": 16, "type_vocab_size": 1}
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    model = _shake(transformers.AutoModel.from_config(config))
    model.save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        feature_size=32, max_length_s=1, truncation="rand_trunc", padding="repeatpad"
    ).save_pretrained(folder)
    save_tokenizer(folder)
    return model


PE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
}


def _pe_text():
    special = {"cls_token_id": 1, "sep_token_id": 2, "max_position_embeddings": 32}
    return transformers.ModernBertConfig(**TEXT, **special)


def _pe_audio():
    dac = transformers.DacConfig(
        downsampling_ratios=[2, 8, 10, 12], encoder_hidden_size=4, codebook_dim=8, hidden_size=32
    )
    return transformers.PeAudioEncoderConfig(dac_config=dac, **PE)


def save_pe_audio(folder):
    """The part of PE-AV for sounds and texts. Returns the model."""
    torch.manual_seed(11)
    config = transformers.PeAudioConfig(text_config=_pe_text(), audio_config=_pe_audio())
    model = _shake(transformers.PeAudioModel(config))
    model.save_pretrained(folder)
    transformers.PeAudioFeatureExtractor().save_pretrained(folder)
    save_tokenizer(folder)
    return model


def tiny_pe_av():
    """A whole PE-AV, whose pictures go through a vision transformer of transformers itself."""
    torch.manual_seed(12)
    pictures = transformers.ViTConfig(**IMAGE, num_labels=16)
    video = transformers.PeVideoEncoderConfig(vision_config=pictures, **PE)
    both = transformers.PeAudioVideoEncoderConfig(
        audio_config=_pe_audio(), video_config=video, **PE
    )
    config = transformers.PeAudioVideoConfig(text_config=_pe_text(), audio_video_config=both)
    return _shake(transformers.PeAudioVideoModel(config))
