"""PEP 517 backend: makes the gRPC stubs and the native programs, then hands over to maturin.

maturin has no hook for code generation, so this thin layer runs before each of its builds. It is used through
`backend-path` in pyproject.toml and is never installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("fleet-disk", "fleet-monitor", "fleet-presence", "kvload")


def stubs() -> None:
    """Write `agent/pb/*_pb2*.py` from `proto/agent/pb/*.proto`."""
    out = ROOT / "agent" / "pb"
    out.mkdir(exist_ok=True)
    sources = sorted((ROOT / "proto" / "agent" / "pb").glob("*.proto"))
    (out / "__init__.py").write_text('"""Generated from proto/agent/pb; never committed."""\n')
    if sources:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"-I{ROOT / 'proto'}",
                f"--python_out={ROOT}",
                f"--grpc_python_out={ROOT}",
                f"--pyi_out={ROOT}",
                *map(str, sources),
            ],
            check=True,
        )


def programs() -> None:
    """Build the native programs and lay them where maturin's `data` puts them into the wheel's `bin`."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    profile = os.environ.get("FLEETD_CARGO_PROFILE", "release")
    # The disk by itself: with its libraries' features the store would be built once more.
    for which in (["--workspace", "--exclude", "fleet-disk"], ["-p", "fleet-disk"]):
        command = ["cargo", "build", "-q", "--profile", profile, "--locked", *which, "--bins"]
        subprocess.run(command, cwd=ROOT, check=True)
    scripts = ROOT / "build" / "wheel-data" / "scripts"
    shutil.rmtree(scripts, ignore_errors=True)
    scripts.mkdir(parents=True)
    for name in PROGRAMS:
        shutil.copy2(target / profile / name, scripts / name)


def prepare() -> None:
    """Everything that must exist before maturin packs."""
    os.environ.setdefault("MATURIN_NO_INSTALL_RUST", "1")
    stubs()
    programs()


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """PEP 517."""
    prepare()
    import maturin

    return str(maturin.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """PEP 660."""
    prepare()
    import maturin

    return str(maturin.build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """PEP 517."""
    stubs()
    import maturin

    return str(maturin.build_sdist(sdist_directory, config_settings))


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Nothing beyond `build-system.requires`."""
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel
