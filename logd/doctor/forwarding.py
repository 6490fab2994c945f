"""What keeps packets from containers: other tables of the firewall that drop what is forwarded.

A packet has to pass all of them; what logd's own table accepts does not count there. Docker beside logd sets the policy
of iptables' FORWARD to DROP. Sources: nft(8), libnftables-json(5), iptables(8).
"""

import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Final

from logd.config import find_program
from logd.doctor.check import FAIL, OK, WARN, Check

NAME: Final = "forwarding"
WAIT_S: Final = 20.0
LEGACY: Final = "iptables-legacy"

Ask = Callable[..., str]


def ask(*command: str) -> str:
    """Return what a program prints, "" where it is not installed or fails (blocks)."""
    program = find_program(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=WAIT_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def forwarding(links: Sequence[str], own_table: str, asked: Ask = ask) -> Check:
    """Look for tables that drop what is forwarded and do not name our bridges, `links`, in use."""
    if find_program("nft") is None:
        return Check(NAME, FAIL, "nft is not installed: networks can't be set up", "install nftables")
    if not links:
        return Check(NAME, OK, "no container is in a network")
    deaf = [
        f"{family} {table}"
        for family, table in _dropping(asked("nft", "-j", "list", "chains"), own_table)
        if not all(link in asked("nft", "list", "table", family, table) for link in links)
    ]
    legacy = asked(LEGACY, "-S")
    if "-P FORWARD DROP" in legacy and not all(link in legacy for link in links):
        deaf.append(LEGACY)
    if not deaf:
        return Check(NAME, OK, "no other table drops what is forwarded for our bridges")
    found = f"forwarded packets are dropped unless a rule lets them through, by: {', '.join(deaf)}"
    rules = "; ".join(f"iptables -I CHAIN -{way} {link} -j ACCEPT" for link in links[:1] for way in "io")
    return Check(
        NAME, WARN, found, f"for each bridge of logd: {rules} (CHAIN: DOCKER-USER beside Docker, else FORWARD)"
    )


def _dropping(chains: str, own_table: str) -> list[tuple[str, str]]:
    """Return (family, table) of the base chains of the forward hook whose policy is to drop."""
    try:
        listed: list[dict[str, Any]] = json.loads(chains)["nftables"] if chains else []
    except (ValueError, KeyError, TypeError):
        return []
    found = [one["chain"] for one in listed if "chain" in one]
    return [
        (one["family"], one["table"])
        for one in found
        if one.get("hook") == "forward" and one.get("policy") == "drop" and one["table"] != own_table
    ]
