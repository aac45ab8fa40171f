"""Two hosts on one machine: network namespaces on a switch of their own, which no packet leaves."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.drives import environment
from chaos.journal import is_alive, wait_until
from chaos.machines import HEALTH

ADDRESSES = {"a": "10.213.0.1", "b": "10.213.0.2"}
PORT = 6379
CUTS = {
    # packets vanish on the switch, and both hosts see a link that is up
    "silent": (("ip", "-n", "{switch}", "link", "set", "port-b", "nomaster"),),
    "link down": (("ip", "-n", "{b}", "link", "set", "eth0", "down"),),
    # what b sends is longer than the bucket is deep, so all of it is dropped; what a sends arrives
    "one way": (
        (
            "tc",
            "-n",
            "{b}",
            "qdisc",
            "add",
            "dev",
            "eth0",
            "root",
            *["tbf", "rate", "8bit", "burst", "10", "latency", "1ms"],
        ),
    ),
}
MENDS = {
    "silent": (("ip", "-n", "{switch}", "link", "set", "port-b", "master", "bridge"),),
    "link down": (("ip", "-n", "{b}", "link", "set", "eth0", "up"),),
    "one way": (("tc", "-n", "{b}", "qdisc", "del", "dev", "eth0", "root"),),
}


def why_not() -> str:
    """Why this machine cannot make namespaces; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root alone"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"two hosts need the program {tool}"
    name = f"chaos-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"no network namespace: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Hosts:
    """Host a with Ray's head, host b with a node; whatever runs on them is killed at the end."""

    def __init__(self, folder: Path) -> None:
        self._names = {host: f"chaos-{os.getpid()}-{host}" for host in ("switch", "a", "b")}
        self._folder = folder
        # short: sockets are in it
        self._environment = {
            **{name: value for name, value in environment().items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"},
            **{f"RAY_{name}": str(value) for name, value in HEALTH.items()},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32)),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def address(self) -> str:
        return f"{ADDRESSES['a']}:{PORT}"

    def on(self, host: str) -> list[str]:
        """The beginning of a command that runs on a host."""
        return ["ip", "netns", "exec", self._names[host], "env", "-u", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]

    def __enter__(self) -> Self:
        try:
            self._wire()
            self.start("a")
            self.start("b")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for host, name in self._names.items():
            if (Path("/run/netns") / name).exists():
                self.stop(host)
                subprocess.run(["ip", "netns", "del", name], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wire(self) -> None:
        for name in self._names.values():
            _ip("netns", "add", name)
        switch = self._names["switch"]
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host, address in ADDRESSES.items():
            name, port = self._names[host], f"port-{host}"
            _ip("-n", switch, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def start(self, host: str) -> None:
        """Ray on a host: one CPU, in the cluster whose head is a."""
        where = [f"--address={self.address}"]
        if host == "a":
            where = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self._folder}"]
        command = [*self.on(host), sys.executable, "-m", "ray.scripts.scripts", "start", *where]
        command += [f"--node-ip-address={ADDRESSES[host]}", "--num-cpus=1", f"--object-store-memory={100 * 2**20}"]
        done = subprocess.run(
            command, env={**self._environment, "CHAOS_NODE": host}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def pids(self, host: str) -> list[int]:
        """Of all that runs on a host."""
        told = subprocess.run(["ip", "netns", "pids", self._names[host]], capture_output=True, text=True, check=True)
        return [int(pid) for pid in told.stdout.split() if is_alive(int(pid))]

    def stop(self, host: str) -> None:
        """SIGKILL for all that runs on a host."""
        for pid in self.pids(host):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it went by itself meanwhile
        wait_until(lambda: not self.pids(host), 30, f"host {host} is empty")

    def raylets(self, host: str) -> list[int]:
        """The pids of a host's raylets: one while it is in the cluster."""
        return [pid for pid in self.pids(host) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]

    def cut(self, how: str) -> None:
        """Cuts b off, in one of the ways of CUTS."""
        self._do(CUTS[how])

    def mend(self, how: str) -> None:
        """Undoes the cut."""
        self._do(MENDS[how])

    def _do(self, commands: tuple[tuple[str, ...], ...]) -> None:
        for command in commands:
            subprocess.run([word.format(**self._names) for word in command], check=True)

    def hears(self) -> bool:
        """Whether a packet from a comes back from b."""
        ask = (
            "import socket, sys; s = socket.socket(); s.settimeout(1); "
            f"sys.exit(s.connect_ex(('{ADDRESSES['b']}', 9)) != 111)"
        )
        # 111, refused: somebody is there to refuse
        return subprocess.run([*self.on("a"), sys.executable, "-c", ask], check=False).returncode == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
