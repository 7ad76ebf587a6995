"""Signs, in a file's own headers, that its end is missing or that it is encrypted.

FFmpeg plays a file that was cut short without complaint, and for some formats adjusts the declared
duration to what is there, so the headers are read here where its answer does not help.
"""

import re

# Longer gaps than these between declared and decoded are no encoder's delay or rounding.
_SLACK_S, _SLACK_SHARE = 0.25, 0.005
# Demuxers whose duration is written in a header rather than estimated from the bit rate.
_DECLARING = {"flac", "aiff", "caf", "w64", "wv", "tta", "ape", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}
_UNKNOWN_RIFF_SIZES = {0, 0xFFFFFFFF}  # what programs write when they cannot seek back to the header
_MPEG_INFO = re.compile(rb"Xing|Info|VBRI")
_MP4_PROTECTED = re.compile(rb"stsd.{12}(drms|enca|aavd)", re.DOTALL)  # names of encrypted sample entries
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_ENCRYPTION = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")  # Content Encryption Object


def protection(data: bytes) -> str | None:
    """The kind of encryption that a file announces, or None."""
    if data[4:8] == b"ftyp" and (match := _MP4_PROTECTED.search(data)):
        return f"MP4 {match[1].decode()}"
    if data.startswith(_ASF_HEADER) and _ASF_ENCRYPTION in data[: 1 << 16]:
        return "Windows Media DRM"
    return None


def missing_end(
    data: bytes, container: str, sample_rate: int, decoded_s: float, declared_s: float | None
) -> str | None:
    """What shows that a file lacks its end, or None if nothing does.

    `container` is FFmpeg's name of the format, `declared_s` the duration FFmpeg reports. An MP3 without
    a Xing, Info or VBRI header and a bare AAC stream declare nothing, so a cut there cannot be seen.
    """
    if container == "ogg":
        return _ogg_end(data)
    if container == "wav":
        return _riff_end(data)
    if container == "mp3":
        declared_s = _mpeg_duration_s(data, sample_rate)
    elif container not in _DECLARING:
        return None
    if declared_s is None or declared_s - decoded_s <= _SLACK_S + _SLACK_SHARE * declared_s:
        return None
    return f"the header declares {declared_s:.1f} s, the file holds {decoded_s:.1f} s"


def _ogg_end(data: bytes) -> str | None:
    """Ogg (RFC 3533): the last page must be whole and carry the end-of-stream flag."""
    page = data.rfind(b"OggS")
    header_end = page + 27
    n_segments = data[page + 26] if len(data) >= header_end else 255
    page_end = header_end + n_segments + sum(data[header_end : header_end + n_segments])
    if header_end + n_segments > len(data) or page_end > len(data):
        return "the last Ogg page is incomplete"
    if not data[page + 5] & 0x04:
        return "the last Ogg page is not marked as the end of the stream"
    return None


def _riff_end(data: bytes) -> str | None:
    """WAV: the data chunk must be as long as its header says."""
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if name == b"data":
            held = len(data) - position
            if size in _UNKNOWN_RIFF_SIZES or size - held <= _SLACK_SHARE * size:
                return None
            return f"the header declares {size:,} bytes of samples, the file holds {held:,}"
        position += size + size % 2
    return None


def _mpeg_duration_s(data: bytes, sample_rate: int) -> float | None:
    """Duration by the frame count in the Xing, Info or VBRI header of an MP3, or None without one."""
    start = 0
    while data[start : start + 3] == b"ID3":
        size = data[start + 6 : start + 10]
        start += 10 + sum(byte << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=False))
    match = _MPEG_INFO.search(data, start, start + 2048)
    if match is None:
        return None
    at = match.start()
    if match[0] == b"VBRI":
        n_frames = int.from_bytes(data[at + 14 : at + 18], "big")
    else:
        has_count = data[at + 7 : at + 8] and data[at + 7] & 1
        n_frames = int.from_bytes(data[at + 8 : at + 12], "big") if has_count else 0
    samples_per_frame = 1152 if sample_rate >= 32_000 else 576  # MPEG 1, and MPEG 2 at its lower rates
    return n_frames * samples_per_frame / sample_rate if n_frames else None
