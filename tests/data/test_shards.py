"""The steps of preparing that only move bytes start without any model library."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("step", ["fetch", "shards"])
def test_a_step_that_only_moves_bytes_loads_no_model(step: str) -> None:
    models = "{'torch', 'onnxruntime', 'ray', 'mlflow'}"
    code = f"import sys, etude.data.{step}; print({models} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
