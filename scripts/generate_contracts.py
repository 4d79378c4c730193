"""Write openapi/: the documents that describe the API to programs, with the demo tools (`make openapi`).

A test fails when they aren't current.
"""

from __future__ import annotations

import json
from pathlib import Path

from gateway.serve import contracts
from gateway.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "openapi"


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, document in contracts(Settings()).items():
        (FOLDER / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
