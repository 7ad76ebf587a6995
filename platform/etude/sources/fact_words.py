"""What the labels of networks, scores and synthesizers are called in a sentence.

The labels are the fifty of the Million Song Dataset that AudioMuse-AI's MusiCNN gives, and its six features.
Those of them that stand in no table here are genres.
"""

# The demo library's collections: a book's title says nothing of the sound, a composer's name is not heard.
GENRES = {
    "Bach chorales": "chorale",
    "Ryan's Mammoth": "American folk",
    "O'Neill's": "Irish folk",
    "Aird's Airs": "Scottish folk",
    "Essen folk songs": "folk song",
    "Palestrina masses": "Renaissance mass",
    "Trecento": "medieval",
    "Monteverdi madrigals": "madrigal",
    "Quartets": "classical quartet",
    "Piano, rags and songs": "",  # too many things at a time
}
MOODS = {
    "beautiful": "beautiful",
    "mellow": "mellow",
    "chill": "relaxed",
    "chillout": "relaxed",
    "relaxed": "relaxed",
    "easy listening": "easygoing",
    "sexy": "sensual",
    "catchy": "catchy",
    "sad": "sad",
    "happy": "happy",
    "party": "festive",
    "danceable": "danceable",
    "aggressive": "aggressive",
}
# What one piece cannot be at a time; two networks may still have heard both.
OPPOSITES = (
    {"happy", "sad"},
    {"festive", "sad"},
    {"aggressive", "mellow"},
    {"aggressive", "relaxed"},
    {"energetic", "mellow"},
    {"energetic", "relaxed"},
)
# What files' tags have in a genre's place.
NO_GENRES = frozenset(
    {"", "default", "genre", "misc", "miscellaneous", "music", "none", "other", "unclassifiable", "undefined",
     "unknown"}
)  # fmt: skip
SINGERS = {
    "female vocalists": "female vocals",
    "female vocalist": "female vocals",
    "male vocalists": "male vocals",
    "instrumental": "no vocals",
}
ERAS = {
    "60s": "the 1960s",
    "70s": "the 1970s",
    "80s": "the 1980s",
    "90s": "the 1990s",
    "00s": "the 2000s",
    "oldies": "decades ago",
}
INSTRUMENTS = {"guitar": "guitar", "acoustic": "acoustic instruments", "choir aahs": "choir"}
# The words of keys, in full and as files' tags have them.
MODES = {
    "major": "major",
    "maj": "major",
    "minor": "minor",
    "min": "minor",
} | {name: name for name in ("ionian", "dorian", "phrygian", "lydian", "mixolydian", "aeolian", "locrian")}
