"""What may import what: folders only what stands below them, and nothing heavy before it is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "datasets", "openai", "math_verify")


def test_a_folder_imports_only_what_stands_below_it():
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed: pip install 'posttrain[dev]'")
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", ["cli.py", "grading", "prompting", "tasks", "rollout"])
def test_importing_it_loads_no_heavy_library(folder):
    path = ROOT / "posttrain" / folder
    files = [path] if path.is_file() else sorted(path.glob("*.py"))
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert modules
    code = f"import importlib, json, sys; [importlib.import_module(m) for m in {modules}]; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert sorted(set(json.loads(done.stdout)) & set(HEAVY)) == []
