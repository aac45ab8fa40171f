"""Who imports the cluster's rooms does not pay for Ray."""

from __future__ import annotations

import subprocess
import sys


def test_no_room_imports_ray_before_it_is_needed() -> None:
    rooms = "task policy schedule placement progress errors events actor launch crew pool"
    code = f"import sys\nfor room in {rooms.split()}: __import__('cluster.' + room)\nsys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
