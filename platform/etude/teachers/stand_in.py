"""A stand-in for CLAP, where its weights cannot be had: its shape, small, with random weights.

    python -m etude.teachers.stand_in FOLDER

writes `clap_audio_model.onnx`, `clap_text_model.onnx` and `tokenizer.json`. Inputs, outputs and layers are
those of LAION's CLAP as the library transformers builds it: HTSAT for mels, RoBERTa for texts, both to 512
numbers. The weights are random, from a fixed seed: what it says of music and of words means nothing, and no
text belongs to any music. It serves to run all that a CLAP runs through, in tests and in demonstrations.

A random network answers nearly the same to everything. Its first normalisation is therefore set to the
usual loudness of music, and its projection to the mean and the spread that it shows on a few made-up
sounds, or words, so that different ones get different vectors.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional

from etude.audio.mel import segment_mel
from etude.audio.torchaudio_cpu import import_torchaudio
from etude.teachers.clap import DIM, RECIPE
from etude.teachers.clap_text import END, IDS, MAX_TOKENS, PAD, START

AUDIO, TEXT, TOKENIZER = "clap_audio_model.onnx", "clap_text_model.onnx", "tokenizer.json"
NOTE = "A stand-in for CLAP with random weights: it knows nothing of music or words."
SEED = 4
OPSET = 18

_HTSAT_FRAMES = 1024  # to which HTSAT stretches a mel
_MEL_MEAN_DB, _MEL_STD_DB = -40.0, 20.0  # of music at usual loudness, over all bands
_GAIN = 1.5  # of a layer: large enough for the attention to choose
_SOUNDS = 24
_VOCABULARY = 512  # 5 special tokens, 256 bytes, and what the words below are made of
_TERMS = (
    "ambient acoustic african aggressive baroque bass beat blues bossa bowed brass bright calm cello choir "
    "chorale classical clarinet country dance dark deep disco distorted dreamy drum drums duet dub eastern "
    "electric electro electronic energetic epic ethereal fast female fiddle flamenco flute folk french funk "
    "funky gentle glitch gospel groove guitar guitars happy hard harmonica harp harpsichord heavy hip hop "
    "house indie industrial instrumental intense irish jazz keyboard latin live lofi loud love low lute "
    "lyrical major male mandolin march marimba meditative melancholic melody metal minimal minor modern mood "
    "music nature new noise oboe opera orchestra orchestral organ party pedal percussion phrase pianist "
    "piano playful polka pop post powerful progressive psychedelic punk quartet quiet ragtime rap rave "
    "reggae relaxed rhythm robotic rock romantic sad samba saxophone scream singer singing sitar slow soft "
    "solo song soul sound soundtrack spoken strings strong swing synth synthesizer tango techno tender "
    "trance tribal trio trip trombone trumpet ukulele uplifting vibraphone violin vocal vocalist voice "
    "voices waltz warm weird whispered wind wistful with without woman world young"
)
_WORDS = _TERMS.split()


def write_stand_in(folder: Path) -> None:
    """Write the three files. The same files every time on one machine."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / TOKENIZER))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # other numbers add up in another order
    try:
        model = _random_clap(tokenizer.get_vocab_size())
        mels_B1TF = torch.from_numpy(_sounds())
        audio, text = _Audio(model), _Text(model)
        _spread(model.audio_projection, audio.pooled(mels_B1TF))
        ids_BT = torch.tensor([_padded(tokenizer.encode(word).ids) for word in _WORDS])
        _spread(model.text_projection, text.pooled(ids_BT, (ids_BT != IDS[PAD]).long()))
        named = {0: "batch", 2: "frames"}
        _export(audio, {"mel_spectrogram": mels_B1TF[:2]}, "audio_embedding", folder / AUDIO, named)
        texts = {"input_ids": ids_BT[:2], "attention_mask": torch.ones_like(ids_BT[:2])}
        named = {0: "batch"}
        _export(text, texts, "text_embedding", folder / TEXT, named, named)
    finally:
        torch.set_num_threads(threads)


class _Audio(nn.Module):
    """Mels [b, 1, frames, 64] in dB to vectors [b, 512] of length 1."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.projection = model.audio_model, model.audio_projection

    def pooled(self, mel_B1TF: Tensor) -> Tensor:
        # HTSAT's own stretching, done before its normalisation, which is the same thing: the library asks
        # for the number of frames, and an exported graph cannot.
        stretched = functional.interpolate(
            mel_B1TF, (_HTSAT_FRAMES, RECIPE.n_mels), mode="bicubic", align_corners=True
        )
        pooled: Tensor = self.encoder(input_features=stretched).pooler_output
        return pooled

    def forward(self, mel_spectrogram: Tensor) -> Tensor:
        return functional.normalize(self.projection(self.pooled(mel_spectrogram)), dim=-1)


class _Text(nn.Module):
    """Tokens and their mask, int64 [b, 77], to vectors [b, 512] of length 1."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.projection = model.text_model, model.text_projection

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return functional.normalize(self.projection(self.pooled(input_ids, attention_mask)), dim=-1)


def _random_clap(vocabulary: int) -> Any:
    """transformers' ClapModel, 1.5 M parameters, with random weights."""
    import_torchaudio()  # transformers looks for it
    from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

    audio = ClapAudioConfig(
        num_mel_bins=RECIPE.n_mels,
        patch_embeds_hidden_size=24,
        hidden_size=24 * 2**3,  # doubled by every stage but the first
        depths=[1, 1, 2, 1],
        num_attention_heads=[2, 4, 8, 16],
        mlp_ratio=2.0,
        enable_fusion=False,
    )
    text = ClapTextConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=MAX_TOKENS + IDS[PAD] + 1,  # RoBERTa counts from the padding's id on
        type_vocab_size=1,
    )
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=DIM)
    config._attn_implementation = "eager"
    model = ClapModel(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if "embeddings" not in name else 1
            parameter.normal_(0.0, _GAIN * fan_in**-0.5, generator=generator)
        elif "norm" not in name.lower():
            parameter.zero_()
    batch_norm = model.audio_model.audio_encoder.batch_norm
    batch_norm.running_mean.fill_(_MEL_MEAN_DB)
    batch_norm.running_var.fill_(_MEL_STD_DB**2)
    return model


def _spread(projection: Any, pooled_BD: Tensor) -> None:
    """Centre a projection on what it is given here, and divide by its spread."""
    first, second = projection.linear1, projection.linear2
    # Rounded, so that the last digits of another processor do not show.
    mean_D, std_D = (one.to(torch.float16).float() for one in (pooled_BD.mean(0), pooled_BD.std(0)))
    scale_D = 1.0 / std_D.clamp_min(1e-3)
    first.weight.mul_(scale_D)
    first.bias.copy_(-first.weight @ mean_D)
    hidden_BD = functional.relu(first(pooled_BD))
    second.bias.copy_(-second.weight @ hidden_BD.mean(0).to(torch.float16).float())


def _sounds() -> NDArray[np.float32]:
    """Mels [n, 1, 1001, 64] in dB of made-up sounds: chords of three notes at a pulse, over some noise."""
    generator = np.random.default_rng(SEED)
    seconds = np.arange(RECIPE.segment_samples) / RECIPE.sample_rate
    waveforms = []
    for _ in range(_SOUNDS):
        noise = 10 ** generator.uniform(-5.0, -1.5) * generator.standard_normal(len(seconds))
        decay, pulse_s = generator.uniform(0.0, 8.0), generator.uniform(0.15, 2.0)
        chord = np.zeros(len(seconds))
        for pitch in generator.uniform(30.0, 90.0, 3):  # of MIDI
            turn = np.exp(2j * np.pi * 440.0 * 2 ** ((pitch - 69.0) / 12.0) * seconds)
            tone = np.ones_like(turn)
            for harmonic in range(1, generator.integers(2, 12)):
                tone *= turn
                chord += 0.1 / harmonic * tone.imag
        chord *= np.exp(-decay * (seconds % pulse_s))
        waveforms.append(10 ** generator.uniform(-1.5, 0.0) * (chord + noise))
    mels_BFT = segment_mel(np.array(waveforms, np.float32), RECIPE)
    return np.ascontiguousarray(mels_BFT.transpose(0, 2, 1)[:, None])


def _tokenizer() -> Any:
    """A byte-level BPE like RoBERTa's, with its special ids and a small vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[START, PAD, END, "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TERMS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing((END, IDS[END]), (START, IDS[START]))
    return tokenizer


def _padded(ids: list[int]) -> list[int]:
    return ids + [IDS[PAD]] * (MAX_TOKENS - len(ids))


def _export(
    module: nn.Module, inputs: dict[str, Tensor], output: str, path: Path, *axes: dict[int, str]
) -> None:
    """Write a module as ONNX, its inputs' axes named. The old exporter: the new takes a minute for this."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=dict(zip(inputs, axes, strict=True)) | {output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    # Where in whose code a node comes from is nobody's business.
    for node in model.graph.node:
        node.doc_string = ""
    model.metadata_props.add(key="note", value=NOTE)
    model.doc_string = NOTE
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    """Write the files into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m etude.teachers.stand_in", description=NOTE)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.expanduser()
    write_stand_in(folder)
    print(f"{NOTE} Written to {folder}: {AUDIO}, {TEXT}, {TOKENIZER}")


if __name__ == "__main__":
    main()
