"""A daemon, containers whose use is known, and the real Prometheus with our example's configuration and rules.

    web      on the host's network, serves a page of metrics and asks to be scraped; Prometheus hears of it twice, from
             a file that holds what GET /logd/sd answered (job containers), and by its own http_sd over TLS (http_sd)
    nginx    burns CPU up to its quota of 0.1, at most 64 MB; its label puts it into the group "monitoring"
    jenkins  had a process killed for want of memory, then holds 24 MB, at most 64 MB
    north    prints 100 lines, delivered to json-file and to a syslog server that is not there; sends to south
    south    on a link with north; reads and writes its disk, past the page cache; may have a CPU and 64 MB
    ill      has a health check that fails
    once     has ended with exit code 3

All are of the Compose project "shop". Time runs faster than where such queries are used: Prometheus scrapes every
SCRAPE instead of 15 s, and a minute of a query's window is MINUTE_S. The rules are as they are.
"""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_peer import Prometheus
from pyroute2 import IPRoute, NetNS

from logd.cli.client import Client

sys.path.append(str(Path(__file__).parents[1] / "drivers"))
from certificates import make_ca, make_certificate

if TYPE_CHECKING:
    from conftest import Daemon

DASHBOARDS: Final = Path(__file__).parents[2] / "dashboards"
SCRAPE: Final = "250ms"
MINUTE_S: Final = 1
"""Has four scrapes."""
LONGEST_WINDOW_S: Final = 5 * MINUTE_S
QUOTA: Final = 0.1
LIMIT_BYTES: Final = 64 << 20
HELD_BYTES: Final = 24 << 20
LINES: Final = {"error": 10, "info": 90}
RUNNING: Final = ("ill", "jenkins", "nginx", "north", "south", "web")
STOPPED: Final = ("once",)

LIMITED: Final = ("-m", str(LIMIT_BYTES), "--pids-limit", "64")
PRINTING: Final = (
    'i=0; while [ $i -lt 10 ]; do echo "level=error msg=no-$i"; j=0; '
    'while [ $j -lt 9 ]; do echo "level=info msg=yes-$j"; j=$((j+1)); done; i=$((i+1)); done'
)
SENDING: Final = "while :; do dd if=/dev/zero bs=1k count=64 | nc -w 2 10.77.0.2 9000; sleep 0.1; done >/dev/null 2>&1"
TAKING: Final = "nc -ll -p 9000 -e cat >/dev/null"
DISK: Final = (
    "while :; do dd if=/dev/zero of=/file bs=64k count=16 oflag=direct; dd if=/file of=/dev/null bs=64k iflag=direct; "
    "sleep 0.1; done 2>/dev/null"
)
HOLDING: Final = f"tail /dev/zero; dd if=/dev/zero bs={HELD_BYTES} count=1 | sleep 9999"
"""dd has read all of it into its memory and can't write it."""


ILL: Final = ("--health-cmd=false", "--health-interval=1s", "--health-retries=1")


class Scene:
    """All of it; `make_daemon` is given flags. `close` ends Prometheus; the daemon is the caller's."""

    prometheus: Prometheus

    def __init__(self, make_daemon: "Callable[..., Daemon]", busybox_tar: bytes, folder: Path) -> None:
        self.ca = make_ca(folder, "ca")
        self.tcp_address = f"localhost:{_free_port()}"
        server = make_certificate(self.ca, "server")
        files = {"--tlscacert": self.ca, "--tlscert": server, "--tlskey": server.with_suffix(".key")}
        flags = [str(part) for flag_and_file in files.items() for part in flag_and_file]
        self.daemon = make_daemon("--tlsverify", *flags, "-H", f"tcp://{self.tcp_address}", "-H", "unix://")
        self.metrics_address = f"127.0.0.1:{_free_port()}"
        self.dead_address = f"127.0.0.1:{_free_port()}"
        self._folder = folder
        self._busybox_tar = busybox_tar

    def start(self) -> None:
        """Start everything, and return once it has been seen for as long as the longest window of a query."""
        daemon = self.daemon
        settings = json.loads(daemon.config_file.read_text())
        settings["metrics-addr"] = self.metrics_address
        settings["logd"]["metrics"] = {"labels": ["org.label-schema.group", "com.docker.compose.project"]}
        daemon.config_file.write_text(json.dumps(settings))
        daemon.start()
        daemon.docker("import", "-", "busybox:latest", stdin=self._busybox_tar, text=False)
        port = _free_port()
        page = "echo '# TYPE shop_orders_total counter'; echo shop_orders_total 42"
        asking = ("-l", "prometheus.io/scrape=true", "-l", f"prometheus.io/port={port}")
        self._run("web", f"mkdir /www; ({page}) > /www/metrics; httpd -f -p {port} -h /www", *asking, network="host")
        self.prometheus = self._prometheus(self._folder)
        self._run_loads()
        self.prometheus.wait_until_ready()
        self._settle()

    def _run(self, name: str, script: str, *flags: str, network: str = "none") -> None:
        """Start a container; only the two that are joined later have a link that carries something."""
        settings = ("-l", "com.docker.compose.project=shop", "--network", network)
        self.daemon.docker("run", "-d", "--name", name, *settings, *flags, "busybox", "sh", "-c", script)

    def _run_loads(self) -> None:
        group = ("-l", "org.label-schema.group=monitoring")
        self._run("nginx", "while :; do :; done", f"--cpus={QUOTA}", *LIMITED, *group)
        self._run("jenkins", HOLDING, *LIMITED)
        self._run("south", f"{TAKING} & {DISK}", "--cpus=1", *LIMITED)
        drivers = ("--log-driver=json-file,audit=syslog", "--log-opt", f"syslog-address=tcp://{self.dead_address}")
        self._run("north", f"{PRINTING}; {SENDING}", *drivers)
        self._run("ill", "sleep 9999", *ILL)
        _join(self.pid("north"), self.pid("south"))

    def _prometheus(self, folder: Path) -> Prometheus:
        """Start Prometheus with dashboards/prometheus.yml, but for addresses, times and the place of files."""
        (folder / "targets").mkdir()
        groups = Client(self.daemon.host).json("GET", "/logd/sd")
        (folder / "targets" / "targets.json").write_text(json.dumps(groups))
        (folder / "rules").mkdir()
        for rules in (DASHBOARDS / "rules").glob("*.yml"):
            (folder / "rules" / rules.name).write_text(rules.read_text())
        (folder / "rules" / "node_exporter.yml").write_text(node_exporter())
        text = (DASHBOARDS / "prometheus.yml").read_text()
        for usual, ours in (
            ("scrape_interval: 15s", f"scrape_interval: {SCRAPE}\n  scrape_timeout: {SCRAPE}"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("127.0.0.1:9323", self.metrics_address),
            ("/etc/prometheus/logd", str(folder / "targets")),
        ):
            assert text.count(usual) == 1, usual
            text = text.replace(usual, ours)
        return Prometheus(folder, text + self._http_sd())

    def _http_sd(self) -> str:
        """Return the job that docs/dashboards.md has beside the example's, as JSON, which is YAML too."""
        certificate = make_certificate(self.ca, "prometheus")
        secured = {"ca_file": self.ca, "cert_file": certificate, "key_file": certificate.with_suffix(".key")}
        asked = {
            "url": f"https://{self.tcp_address}/logd/sd",
            "refresh_interval": "1s",
            "tls_config": {key: str(path) for key, path in secured.items()},
        }
        return f"\n  - {json.dumps({'job_name': 'http_sd', 'http_sd_configs': [asked]})}\n"

    def pid(self, name: str) -> int:
        return int(self.daemon.docker("inspect", "--format", "{{.State.Pid}}", name).stdout)

    def id(self, name: str) -> str:
        return str(self.daemon.docker("inspect", "--format", "{{.Id}}", name).stdout.strip())

    def _settle(self) -> None:
        peer = self.prometheus
        peer.wait_for("shop_orders_total", lambda found: len(found) == 2)
        peer.wait_for('logd_container_info{name="ill"}', bool)
        self._run("once", "exit 3")  # an action that Prometheus sees happen
        peer.wait_for('logd_container_exit_code{name="once"}', bool)
        peer.wait_for('container_oom_events_total{name="jenkins"} > 0', bool)
        peer.wait_for('container_network_receive_bytes_total{name="south"}', bool)
        peer.wait_for('container_fs_writes_bytes_total{name="south"}', bool)
        peer.wait_for(f'container_memory_rss{{name="jenkins"}} > {HELD_BYTES}', bool)
        seen = time.monotonic()
        peer.wait_for("up", lambda _: time.monotonic() > seen + LONGEST_WINDOW_S)

    def close(self) -> None:
        if hasattr(self, "prometheus"):
            self.prometheus.close()


def faster(text: str) -> str:
    """Return expressions in whose windows a minute is MINUTE_S."""
    minutes = {"m": 1, "h": 60}

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * minutes[found[3]] * MINUTE_S}s"

    return re.sub(r"(\[|\boffset )(\d+)([mh])\b", shorter, text)


def node_exporter() -> str:
    """Return rules that make what the node exporter, which is no part of this, would add: a series for each CPU."""
    rules = [
        {"record": name, "expr": "vector(1)", "labels": {"mode": mode, "cpu": str(cpu)}}
        for name in ("node_cpu", "node_cpu_seconds_total")
        for mode in ("user", "system")
        for cpu in range(os.cpu_count() or 1)
    ]
    return json.dumps({"groups": [{"name": "node-exporter", "interval": "1s", "rules": rules}]})


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: Any = free.getsockname()[1]
    return int(port)


def _join(north: int, south: int) -> None:
    """Give two processes' network namespaces an eth0 each, which are the ends of one link."""
    with IPRoute() as kernel:
        peer = {"ifname": "eth0", "net_ns_pid": south}
        kernel.link("add", ifname="eth0", kind="veth", net_ns_pid=north, peer=peer)
    for pid, address in ((north, "10.77.0.1"), (south, "10.77.0.2")):
        with NetNS(f"/proc/{pid}/ns/net") as namespace:
            [index] = namespace.link_lookup(ifname="eth0")
            namespace.addr("add", index=index, address=address, prefixlen=24)
            namespace.link("set", index=index, state="up")
