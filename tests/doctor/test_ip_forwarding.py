"""Whether another table keeps packets from containers is found, and what to do is said."""

import subprocess
import sys
from pathlib import Path

from logd.doctor import forwarding
from logd.doctor.check import OK, WARN

ROOT = Path(__file__).parent.parent.parent
LOOK = """
import sys
from logd.doctor.forwarding import forwarding
check = forwarding(["logd0"], "logd")
print(check.status, check.found, check.advice)
"""


def look_after(commands: str) -> str:
    """Return what is found in a network namespace of its own after some commands."""
    script = f"{commands}\nexec {sys.executable} -c '{LOOK}'"
    command = ["unshare", "--net", "sh", "-euc", script]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_policy_that_drops_is_named_with_the_rules_that_help() -> None:
    found = look_after("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'")
    assert found.startswith("warn ")
    assert "by: ip filter" in found
    assert "iptables -I CHAIN -i logd0 -j ACCEPT; iptables -I CHAIN -o logd0 -j ACCEPT" in found


def test_a_policy_that_drops_is_fine_where_a_rule_names_the_bridge() -> None:
    chain = 'chain FORWARD { type filter hook forward priority 0; policy drop; iifname "logd0" accept; };'
    assert look_after(f"nft 'table ip filter {{ {chain} }}'").startswith("ok ")


def test_policies_that_accept_and_our_own_table_are_fine() -> None:
    for table in (
        "filter { chain FORWARD { type filter hook forward priority 0; }; }",
        "logd { chain f { type filter hook forward priority 0; policy drop; }; }",
    ):
        assert look_after(f"nft 'table inet {table}'").startswith("ok ")


def test_iptables_of_the_old_kind_is_asked_too() -> None:
    def asked(*command: str) -> str:
        return "-P INPUT ACCEPT\n-P FORWARD DROP\n" if command[0] == "iptables-legacy" else ""

    assert forwarding.forwarding(["logd0"], "logd", asked).status == WARN
    assert forwarding.forwarding([], "logd", asked).status == OK
    assert forwarding.forwarding(["logd0"], "logd", lambda *_: "not json").status == OK
