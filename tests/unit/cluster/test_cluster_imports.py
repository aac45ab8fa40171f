"""Who imports the cluster's rooms does not pay for Ray."""

from __future__ import annotations

import os
import subprocess
import sys

from cluster.launch import PRIVATE


def test_no_room_imports_ray_before_it_is_needed() -> None:
    rooms = "task policy backlog roster clocks schedule placement progress metrics signals errors events actor launch"
    rooms += " crew pool seats cores exposure unfit"
    code = f"import sys\nfor room in {rooms.split()}: __import__('cluster.' + room)\nsys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_private_ray_that_would_be_open_to_everybody_is_not_started() -> None:
    """Ray reads its authentication when it is imported; whoever did that first must have set it."""
    code = "import ray\nfrom cluster.launch import connect\nconnect(num_cpus=1)"
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ClusterError: Ray was imported before this process connected to it" in done.stderr
