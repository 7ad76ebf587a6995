"""A recording of the user's own."""

from pathlib import Path

from etude.audio.decode import Audio, check_audible, decode
from etude.data.plan import PrepareConfig
from etude.errors import BadAudio, UserError


def read_audio(path: Path) -> Audio:
    """Decode a file, held to what a library is. Raises UserError if it cannot be read or used."""
    usual = PrepareConfig()
    try:
        audio = decode(path.expanduser().read_bytes())
        check_audible(audio, usual.min_duration_s, usual.silence_dbfs)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give an audio file") from None
    except BadAudio as error:
        raise UserError(f"{path} cannot be used ({error}): give another file") from None
    return audio
