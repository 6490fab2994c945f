"""The daemon's settings for containers that say nothing of their own about name servers and their host."""

from logd.config import DaemonConfig
from logd.engine.launching import with_host_gateway, with_name_servers
from logd.runtime.network_files import NetworkSetup
from logd.spec import HostConfig

CONFIG = DaemonConfig(
    dns=("192.0.2.53",), dns_opts=("timeout:1",), dns_search=("example",), host_gateway_ip="192.0.2.1"
)


def test_a_container_has_the_daemons_name_servers_options_and_domains_kind_by_kind() -> None:
    plain = with_name_servers(HostConfig(), CONFIG)
    assert (plain.dns, plain.dns_options, plain.dns_search) == (["192.0.2.53"], ["timeout:1"], ["example"])
    own = with_name_servers(HostConfig(dns=["192.0.2.99"], dns_search=["."]), CONFIG)
    assert (own.dns, own.dns_options, own.dns_search) == (["192.0.2.99"], ["timeout:1"], ["."])
    assert with_name_servers(HostConfig(), DaemonConfig()).dns == []


def test_host_gateway_is_the_networks_gateway_unless_the_daemon_names_another() -> None:
    setup = NetworkSetup(gateway="10.213.0.1")
    assert with_host_gateway(setup, CONFIG).gateway == "192.0.2.1"
    assert with_host_gateway(setup, DaemonConfig()).gateway == "10.213.0.1"
