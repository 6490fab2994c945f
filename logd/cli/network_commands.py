"""`logd network …`: networks and who is in them, as `docker network` has it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from logd.cli.client import Client, quote
from logd.cli.command import Command, Group
from logd.cli.completion import CONTAINER, NETWORK
from logd.cli.formats import FILTER, FORMAT, NO_TRUNC, QUIET, TABLE, Columns, print_rows
from logd.cli.inspect_command import inspect_of
from logd.cli.references import parse_filters, short_id
from logd.cli.remove_command import rm_of
from logd.cli.words import labels, pairs
from logd.errors import InvalidParameter

SHOWN: Final = ("ID", "Name", "Driver", "Scope")
TITLES: Final = {
    "CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
}  # fmt: skip


@click.group(cls=Group)
def network() -> None:
    """Make and remove networks, and connect containers to them."""


@network.command(
    cls=Command, examples=("logd network ls", "logd network ls --filter driver=bridge --format '{{.Name}}'")
)
@QUIET
@FILTER
@NO_TRUNC
@FORMAT
@click.pass_obj
def ls(client: Client, *, quiet: bool, filters: Sequence[str], no_trunc: bool, form: str) -> None:
    """List networks."""
    found = client.json("GET", "/networks", {"filters": parse_filters(filters)})
    items = sorted(found, key=lambda one: str(one["Name"]))
    rows = [_row(item, whole=no_trunc) for item in items]
    if quiet and form == TABLE:
        for row in rows:
            sys.stdout.write(f"{row['ID']}\n")
        return
    labels_of = {row["ID"]: item.get("Labels") or {} for row, item in zip(rows, items, strict=True)}
    print_rows(form, Columns(SHOWN, TITLES), rows, labels_of)


def _row(item: Mapping[str, Any], *, whole: bool) -> dict[str, str]:
    return {
        "CreatedAt": str(item["Created"]).replace("T", " ").replace("Z", " +0000 UTC"),
        "Driver": item["Driver"],
        "ID": item["Id"] if whole else short_id(item["Id"]),
        "IPv4": str(bool(item.get("EnableIPv4", True))).lower(),
        "IPv6": str(bool(item["EnableIPv6"])).lower(),
        "Internal": str(bool(item["Internal"])).lower(),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())),
        "Name": item["Name"],
        "Scope": item["Scope"],
    }


@network.command(
    cls=Command,
    examples=(
        "logd network create shop",
        "logd network create --subnet 172.30.0.0/24 --gateway 172.30.0.1 --internal db",
    ),
)
@click.option("-d", "--driver", default="bridge", show_default=True, help="Driver of the network.")
@click.option("-o", "--opt", "opts", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Addresses of the network.")
@click.option("--gateway", "gateways", multiple=True, metavar="ADDRESS", help="The host's address in it.")
@click.option("--ip-range", "ranges", multiple=True, metavar="CIDR", help="Part of a subnet to give addresses from.")
@click.option("--aux-address", "reserved", multiple=True, metavar="NAME=ADDRESS", help="Address to give to nobody.")
@click.option("--internal", is_flag=True, help="No way out of it, and none in.")
@click.option("--attachable", is_flag=True, help="Taken for docker's sake; without a swarm it means nothing.")
@click.option("--ipv6", is_flag=True, help="Give IPv6 addresses too.")
@click.option("--ipv4/--no-ipv4", default=True, help="Give IPv4 addresses (default); a network without is refused.")
@click.option("--ipam-driver", default="default", show_default=True, metavar="NAME", help="Who gives the addresses.")
@click.option("--ipam-opt", "ipam_opts", multiple=True, metavar="KEY=VALUE", help="Option of that driver.")
@click.option("--scope", default="local", show_default=True, help="Where it is known.")
@click.option("--label", "label_words", multiple=True, metavar="KEY[=VALUE]", help="Attach a label.")
@click.argument("name")
@click.pass_obj
def create(client: Client, /, *, name: str, **options: Any) -> None:
    """Create a network and print its id."""
    if not options["ipv4"]:
        raise InvalidParameter("--ipv4=false: networks without IPv4 are not supported")
    body: dict[str, Any] = {
        "Name": name,
        "Driver": options["driver"],
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "EnableIPv6": options["ipv6"],
        "IPAM": {
            "Driver": options["ipam_driver"],
            "Options": pairs("--ipam-opt", options["ipam_opts"]),
            "Config": _pools(options),
        },
        "Scope": options["scope"],
        "Options": pairs("--opt", options["opts"]),
        "Labels": labels(options["label_words"]),
    }
    created = client.json("POST", "/networks/create", json_body=body)
    if created.get("Warning"):
        sys.stderr.write(f"logd: warning: {created['Warning']}\n")
    sys.stdout.write(f"{created['Id']}\n")


def _pools(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a pool for each subnet, with the gateway, range and reserved addresses that lie in it."""
    import ipaddress  # noqa: PLC0415  # 15 ms for this command only

    pools: list[tuple[Any, dict[str, Any]]] = []
    for text in options["subnets"]:
        try:
            pools.append((ipaddress.ip_network(text, strict=False), {"Subnet": text}))
        except ValueError as error:
            raise InvalidParameter(f"--subnet: {error} (write 172.30.0.0/24)") from error

    def pool_of(option: str, text: str) -> dict[str, Any]:
        try:
            inside = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise InvalidParameter(f"{option}: {error}") from error
        for subnet, pool in pools:
            if subnet.version == inside.version and inside.subnet_of(subnet):
                return pool
        raise InvalidParameter(f"{option}: no --subnet has {text} in it")

    given = (("--gateway", "Gateway", options["gateways"]), ("--ip-range", "IPRange", options["ranges"]))
    for option, key, texts in given:
        for text in texts:
            pool = pool_of(option, text)
            if key in pool:
                raise InvalidParameter(f"{option}: {pool['Subnet']} has {pool[key]} already")
            pool[key] = text
    for name, address in pairs("--aux-address", options["reserved"]).items():
        pool_of("--aux-address", address).setdefault("AuxiliaryAddresses", {})[name] = address
    return [pool for _, pool in pools]


@network.command(cls=Command, examples=("logd network connect --alias db shop postgres",))
@click.option("--ip", metavar="ADDRESS", help="IPv4 address.")
@click.option("--ip6", metavar="ADDRESS", help="IPv6 address.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="One more name in this network.")
@click.option("--link", "links", multiple=True, metavar="CONTAINER:NAME", help="A name of its own for another one.")
@click.option("--link-local-ip", "link_local", multiple=True, metavar="ADDRESS", help="Link-local address.")
@click.option("--driver-opt", "opts", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.argument("name", type=NETWORK, metavar="NETWORK")
@click.argument("container", type=CONTAINER)
@click.pass_obj
def connect(client: Client, /, *, name: str, container: str, **options: Any) -> None:
    """Connect a container to a network."""
    endpoint: dict[str, Any] = {}
    addresses = {
        "IPv4Address": options["ip"], "IPv6Address": options["ip6"], "LinkLocalIPs": list(options["link_local"]),
    }  # fmt: skip
    if any(addresses.values()):
        endpoint["IPAMConfig"] = {key: value for key, value in addresses.items() if value}
    for key in ("aliases", "links"):
        if options[key]:
            endpoint[key.capitalize()] = list(options[key])
    if options["opts"]:
        endpoint["DriverOpts"] = pairs("--driver-opt", options["opts"])
    body = {"Container": container, "EndpointConfig": endpoint}
    client.request("POST", f"/networks/{quote(name)}/connect", json_body=body).close()


@network.command(cls=Command, examples=("logd network disconnect shop postgres",))
@click.option("-f", "--force", is_flag=True, help="Also where the container is not there any more.")
@click.argument("name", type=NETWORK, metavar="NETWORK")
@click.argument("container", type=CONTAINER)
@click.pass_obj
def disconnect(client: Client, *, force: bool, name: str, container: str) -> None:
    """Take a container out of a network."""
    body = {"Container": container, "Force": force}
    client.request("POST", f"/networks/{quote(name)}/disconnect", json_body=body).close()


network.add_command(inspect_of("network", NETWORK))
network.add_command(rm_of("network", NETWORK, "Remove networks in which no container is."))
