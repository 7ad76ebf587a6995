"""What a time signature such as 6/8 says of beats and bars."""

DEFAULT_METRE = "4/4"  # that of a Standard MIDI file that states none


def beat_quarters(metre: str) -> float:
    """Length of the counted beat in quarters: 1 in 3/4, 1.5 in 6/8, 2 in 4/2; 1 where there is no metre."""
    if not metre:
        return 1.0
    beats, unit = map(int, metre.split("/"))
    return 4 / unit * (3 if _compound(beats, unit) else 1)


def beats_per_bar(metre: str) -> float:
    """How many counted beats a bar has: 3 in 3/4, 2 in 6/8; 4 where there is no metre."""
    beats, unit = map(int, (metre or DEFAULT_METRE).split("/"))
    return beats / (3 if _compound(beats, unit) else 1)


def _compound(beats: int, unit: int) -> bool:
    return unit >= 8 and beats % 3 == 0
