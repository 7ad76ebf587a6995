"""torchaudio can be imported beside a PyTorch without CUDA, by us and then by anyone."""

import subprocess
import sys

from etude.audio.torchaudio_cpu import import_torchaudio

SCRIPT = """
import torch
torch.version.cuda = None  # as in a CPU build, whichever runs this test

from etude.audio.torchaudio_cpu import import_torchaudio
ours = import_torchaudio()

import torchaudio, torchaudio.compliance.kaldi
assert ours is torchaudio is import_torchaudio()

try:
    torchaudio.functional.forced_align(torch.zeros(1, 4, 3), torch.ones(1, 2, dtype=torch.int32))
except RuntimeError as error:
    print(error)
"""


def test_in_a_fresh_process_later_imports_work_and_what_needs_the_library_says_so():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "forced_align needs a PyTorch built with CUDA" in done.stdout


def test_spectrograms_are_there():
    assert import_torchaudio().transforms.MelSpectrogram(n_mels=8).n_mels == 8
