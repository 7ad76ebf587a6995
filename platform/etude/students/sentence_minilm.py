"""MiniLM as an encoder that can learn; `teachers/minilm.py` says where its weights come from."""

from torch import nn

from etude.students.sentence_parts import Pretrained, Reader
from etude.teachers.clap_text import load_tokenizer
from etude.teachers.minilm import DIM, MAX_TOKENS, MiniLM, load_bert, mean_of_text, minilm_folder

_PAD = 0  # BERT's [PAD]
_TARGETS = ("query", "key", "value", "dense")  # every linear layer of a BERT block


def load_minilm() -> Pretrained:
    """all-MiniLM-L6-v2. Raises UserError if its files are missing or not the pinned ones."""
    folder = minilm_folder()
    tokenizer, _ = load_tokenizer(folder / "tokenizer.json")
    model = load_bert(folder)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # LoRA has its own; what is frozen needs none
    return Pretrained(
        id=MiniLM.id,
        license=MiniLM.license,
        dim=DIM,
        model=model,
        reader=Reader(tokenizer, MAX_TOKENS, _PAD, pads_left=False),
        pool=mean_of_text,
        targets=_TARGETS,
        exportable=True,
    )
