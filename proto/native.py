"""Bring a checkout's stubs, native module and native programs up to date with its sources; `make native`.

Faster than a reinstall: cargo rebuilds what changed, and the results are laid where the editable install looks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_backend


def lay(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source` in one step; a running program keeps its old file."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.copy2(source, fresh)
    fresh.replace(target)


def main() -> None:
    """Build and lay everything."""
    root = build_backend.ROOT
    build_backend.stubs()
    build_backend.programs()
    subprocess.run(["cargo", "build", "-q", "--release", "--locked", "-p", "kvstore-python"], cwd=root, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release"
    lay(target / "lib_core.so", root / "kvstore" / "_core.abi3.so")
    for name in build_backend.PROGRAMS:
        lay(target / name, Path(sys.prefix) / "bin" / name)


if __name__ == "__main__":
    main()
