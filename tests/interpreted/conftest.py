"""The kernel under Triton's interpreter, in a process that sees Triton: `make test-triton`.

Not called tests/triton: `tests` is on the path, and a folder of that name would be found as the package itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("test_fold_laws")
sys.path.append(str(Path(__file__).parent.parent / "property"))
