"""Import arrows point down: experiments → agents → hyperlora, bargain_env; and torch loads only when it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "bargain_env": {"agents", "hyperlora", "experiments", "torch", "transformers"},
    "hyperlora": {"agents", "experiments"},
    "agents": {"experiments"},
}


def imported(source: str) -> set[str]:
    """Top-level names of all absolute imports, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_the_reader_of_imports_finds_them_everywhere():
    source = "import a.b, c\nfrom d.e import f\nfrom . import g\ndef h():\n    import i as j\n"
    assert imported(source) == {"a", "c", "d", "i"}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_import_points_up(package):
    files = sorted((ROOT / package).rglob("*.py"))
    wrong = {
        str(file.relative_to(ROOT)): sorted(bad)
        for file in files
        if (bad := imported(file.read_text(encoding="utf-8")) & FORBIDDEN[package])
    }
    assert not wrong


@pytest.mark.parametrize("package", ["agents", "bargain_env"])
def test_importing_does_not_load_torch(package):
    code = f"import sys, {package}; print(*sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
