"""Every format gives the music back; every broken file gives one clear reason."""

import io
import struct
from functools import cache

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.audio.decode import Audio, check_audible, decode
from etude.errors import BadAudio

FORMATS = {  # container, codec, least correlation with the original
    "mp3": ("mp3", "libmp3lame", 0.999),
    "aac": ("ipod", "aac", 0.999),
    "alac": ("ipod", "alac", 0.999999),
    "flac": ("flac", "flac", 0.999999),
    "vorbis": ("ogg", "vorbis", 0.99),
    "opus": ("ogg", "libopus", 0.99),
    "wav_u8": ("wav", "pcm_u8", 0.999),
    "wav_s16": ("wav", "pcm_s16le", 0.999999),
    "wav_s24": ("wav", "pcm_s24le", 0.999999),
    "wav_float": ("wav", "pcm_f32le", 0.999999),
    "wav_double": ("wav", "pcm_f64le", 0.999999),
    "aiff": ("aiff", "pcm_s16be", 0.999999),
    "webm": ("webm", "libopus", 0.99),
}


@pytest.fixture(scope="module")
def encoded(chorale, encode):
    """encoded(name of a format) -> the chorale in it; each is made once."""
    return cache(lambda name: encode(chorale, *FORMATS[name][:2]))


def correlation(a, b):
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_mean_of_the_channels(chorale, encoded, name):
    audio = decode(encoded(name))
    expected = chorale.mean(axis=0)
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1
    assert audio.duration_s == pytest.approx(len(expected) / 48_000, abs=0.03)
    assert correlation(audio.samples, expected) > FORMATS[name][2]
    assert np.abs(audio.samples).max() == pytest.approx(np.abs(expected).max(), rel=0.1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_named_so(encoded, name):
    data = encoded(name)
    with pytest.raises(BadAudio, match=r"truncated|cut short"):
        decode(data[: len(data) * 6 // 10])


def test_a_cut_m4a_whose_index_comes_first_is_named_so(chorale, encode):
    data = encode(chorale, "ipod", "aac", movflags="faststart")
    assert decode(data).duration_s == pytest.approx(chorale.shape[1] / 48_000, abs=0.03)
    with pytest.raises(BadAudio, match="truncated: the header declares 23"):
        decode(data[: len(data) * 6 // 10])


def test_an_ogg_file_that_lost_whole_pages_is_named_so(encoded):
    data = encoded("vorbis")
    with pytest.raises(BadAudio, match="end of the stream"):
        decode(data[: data.rfind(b"OggS")])


@pytest.mark.parametrize("n_channels", [1, 6])
@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("wav", "pcm_f32le"), ("ipod", "alac")])
def test_mono_and_surround(chorale, encode, n_channels, container, codec):
    gains = np.linspace(0.3, 1.0, n_channels, dtype=np.float32)[:, None]
    samples = gains * chorale[:1]
    audio = decode(encode(samples, container, codec))
    np.testing.assert_allclose(audio.samples, samples.mean(axis=0), atol=1e-4)


def test_other_rates_are_kept_and_resampled_on_demand(chorale_wav):
    x = soundfile.read(io.BytesIO(chorale_wav), dtype="float32")[0][::2]  # 24 kHz
    file = io.BytesIO()
    soundfile.write(file, x, 24_000, format="OGG", subtype="VORBIS")
    audio = decode(file.getvalue())
    assert audio.sample_rate == 24_000
    assert audio.duration_s == pytest.approx(len(x) / 24_000, abs=0.03)
    assert len(audio.resampled(48_000)) == pytest.approx(2 * len(audio.samples), abs=1)
    assert audio.resampled(24_000) is audio.samples


def test_cover_art_and_old_tags_do_not_matter(encoded):
    data = encoded("mp3")
    picture = io.BytesIO()
    with av.open(picture, "w", format="image2pipe") as output:
        stream = output.add_stream("png", rate=1)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    body = b"\0image/png\0\x03\0" + picture.getvalue()
    frame_v2 = b"APIC" + struct.pack(">IH", len(body), 0) + body
    size = bytes((len(frame_v2) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    tag_v1 = b"TAG" + b"Caf\xe9".ljust(125, b"\0")  # not valid UTF-8
    tagged = b"ID3\x03\0\0" + size + frame_v2 + data + tag_v1
    np.testing.assert_array_equal(decode(tagged).samples, decode(data).samples)


def test_a_damaged_middle_is_skipped_or_named(encoded):
    data = bytearray(encoded("flac"))
    some = len(data) // 2
    data[some : some + 4] = b"\xff\x00\xff\x00"
    assert decode(bytes(data)).duration_s > 22.5
    for position in range(len(data) // 4, len(data) - 9, 2_000):
        data[position : position + 8] = b"\x55" * 8
    with pytest.raises(BadAudio, match=r"damaged|truncated"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"These are the words of a song.\n" * 500, "not audio"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsong.mp3\n#EXT-X-ENDLIST\n", "not audio"),
        (bytes(100_000), "not audio"),
    ],
)
def test_what_is_not_audio_is_refused(data, reason):
    with pytest.raises(BadAudio, match=reason):
        decode(data)


def test_a_video_without_sound_is_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(BadAudio, match="no audio stream"):
        decode(file.getvalue())


def test_an_unknown_codec_is_refused(encoded):
    data = bytearray(encoded("wav_s16"))
    data[20:22] = b"\x99\x99"  # the format tag
    with pytest.raises(BadAudio):
        decode(bytes(data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(chorale, encode, value):
    samples = chorale.copy()
    samples[1, 1000] = value
    with pytest.raises(BadAudio, match="finite"):
        decode(encode(samples, "wav", "pcm_f32le"))


def test_an_encrypted_file_is_refused(encoded):
    data = encoded("aac")
    at = data.index(b"mp4a", data.index(b"stsd"))
    with pytest.raises(BadAudio, match="encrypted"):
        decode(data[:at] + b"drms" + data[at + 4 :])


def test_ffmpeg_is_quiet(encoded, capfd):
    data = encoded("flac")
    with pytest.raises(BadAudio):
        decode(data[: len(data) // 2])
    with pytest.raises(BadAudio):
        decode(b"ID3" + data[1000:5000])
    assert capfd.readouterr().err == ""


@settings(max_examples=60)
@given(
    st.binary(min_size=0, max_size=2_000),
    st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb\x90"]),
)
def test_any_bytes_give_audio_or_a_reason(data, magic):
    try:
        assert len(decode(magic + data).samples) > 0
    except BadAudio as error:
        assert str(error)


@settings(max_examples=30)
@given(share=st.floats(0.0, 0.97), name=st.sampled_from(["mp3", "flac", "vorbis", "wav_s16"]))
def test_a_cut_anywhere_is_noticed(encoded, share, name):
    data = encoded(name)
    with pytest.raises(BadAudio):
        decode(data[: int(len(data) * share)])


def test_what_nobody_thought_of_costs_one_track(encoded, monkeypatch):
    def surprised(*_):
        raise IndexError("list index\nout of range")

    monkeypatch.setattr("etude.audio.decode._decode_stream", surprised)
    with pytest.raises(BadAudio, match=r"something unexpected \(IndexError: list index out of range\)"):
        decode(encoded("flac"))


def test_short_and_silent_tracks_are_named():
    tone = np.full(24_000, 0.01, np.float32)
    check_audible(Audio(tone, 48_000), 0.5, -60.0)
    with pytest.raises(BadAudio, match=r"0\.50 s; at least 1 s"):
        check_audible(Audio(tone, 48_000), 1.0, -60.0)
    with pytest.raises(BadAudio, match=r"-40\.0 dBFS; at least -30 dBFS"):
        check_audible(Audio(-tone, 48_000), 0.5, -30.0)
    with pytest.raises(BadAudio, match="silent"):
        check_audible(Audio(np.zeros(24_000, np.float32), 48_000), 0.5, -60.0)
