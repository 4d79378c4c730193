"""Generate gateway/rpc from protos/, or check that it is current (`--check`).

Snakepit's file keeps its top-level name (`snakepit_bridge.proto`), so that its descriptor is the one that
the real `snakepit_bridge_pb2` registers and both can live in one process. protoc therefore writes absolute
imports of top-level modules; the generated files live in `gateway.rpc`, so those imports are made to point there.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUTPUT = ROOT / "gateway" / "rpc"
SOURCES = ("snakepit_bridge.proto", "gateway/rpc/worker.proto")
IMPORT = re.compile(r"^import snakepit_bridge_pb2 as", re.MULTILINE)


def generate(target: Path) -> dict[str, str]:
    """Return the generated files, name to text."""
    well_known = Path(protoc.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *SOURCES,
        ]
    )
    if code != 0:
        raise SystemExit(code)
    files = {}
    for path in sorted(target.rglob("*_pb2*.py*")):
        files[path.name] = IMPORT.sub("from gateway.rpc import snakepit_bridge_pb2 as", path.read_text())
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail when the committed files are not current")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = generate(Path(scratch))
    if arguments.check:
        stale = [name for name, text in files.items() if not (OUTPUT / name).exists() or (OUTPUT / name).read_text() != text]
        if stale:
            print(f"gateway/rpc is not current ({', '.join(stale)}): run `make protos`", file=sys.stderr)
            return 1
        return 0
    for name, text in files.items():
        (OUTPUT / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
