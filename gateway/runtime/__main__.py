"""`python -m gateway.runtime`: see serve.py."""

from __future__ import annotations

import sys

from gateway.runtime.serve import main

if __name__ == "__main__":
    sys.exit(main())
