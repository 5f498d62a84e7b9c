"""The tests of the HTTP layer under another vcrpy: `python tests/http_versions.py 8.5.0` makes a venv of its own.

The test group has the newest vcrpy; agents' tests may be bound to 8.5, the last line that langchain-tests 1.1 allows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main(wanted: str) -> int:
    """Run the tests; return their exit status."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "-e", ".[all]", "--group", "test", f"vcrpy=={wanted}"], check=True, cwd=ROOT)
        tests = ["-m", "pytest", "-q", "-p", "no:randomly", "tests/face/test_http_layer.py"]
        return subprocess.run([str(python), *tests], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "8.5.0"))
