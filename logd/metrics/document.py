"""docs/metrics.md, made of the registry itself: `python -m logd.metrics.document > docs/metrics.md`."""

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from logd.metrics import daemon, scrape
from logd.metrics.containers import ContainerCollector
from logd.metrics.families import Family
from logd.metrics.pipeline import PipelineCollector

HEAD: Final = """# Metrics

<!-- Made by `python -m logd.metrics.document > docs/metrics.md`; a test compares. -->

`/metrics` is served at [`metrics-addr`](configuration.md), by default `127.0.0.1:9323`, and on the API's socket, in the
text format 0.0.4 or in OpenMetrics 1.0.0, as the scraper prefers, with gzip if it takes that. The listener serves
nothing else. To Prometheus:

```yaml
scrape_configs:
  - job_name: logd
    static_configs: [{targets: ["127.0.0.1:9323"]}]
```

A scrape reads the kernel's counters at that moment: there are no timestamps and nothing is sampled in between. Names,
types and labels are cAdvisor's (`container_*`, `machine_*`) and dockerd's (`engine_daemon_*`, `logger_*`) where these
have the metric, so that dashboards made for them work.

- `id` is the path of the cgroup: `/logd/<64 hex>` for a container, `/` for the machine, `/logd` for all containers
  together. `name` is the container's name, `image` the reference that it was created from (the image's id where it has
  none); neither is ever empty for a container, and the machine and parents have neither.
- Of a container's own labels only those in `logd.metrics.labels` appear, as `container_label_<name>` with each
  character that a label's name can't have as `_`; by default those of Docker Compose.
- Counters of a container count all of its runs; they go on over restarts of the container and of the daemon.
- After a run has ended its counters stay for ten minutes, also if the container was removed, so that no scraper misses
  the end; memory and other gauges end with the run. What a container used that came and went between two scrapes is in
  its parent's series, `{id="/logd"}`.
- A container that exists has its state, exit code and restarts (`logd_container_*`) whether it runs or not.
- Where a figure can't be read the series is missing, and `logd_scrape_collector_success` says so if it is a whole
  collector.

What differs from cAdvisor under the same name: I/O counts what the container did, never what the host did; OOM kills
are the kernel's own count; pressure is there on cgroup v1 with a unified tree too;
`container_spec_memory_swap_limit_bytes` is the limit of swap alone; `container_last_seen`,
`container_start_time_seconds` and `container_health_state` are of containers that run. The few metrics that are untyped
have names that neither format allows for their type, such as a counter without `_total`.

Series with `id`, `name` and `image` have the allowed `container_label_*` besides.
"""


class Section(NamedTuple):
    """A table: of the families whose names begin so, unless an earlier table has them."""

    title: str
    names: tuple[str, ...]


SECTIONS: Final = (
    Section("Containers and the machine", ("container_", "machine_")),
    Section("Where containers stand", ("logd_container_",)),
    Section("What they print", ("logd_captured_", "logd_lines_", "logd_store", "logd_last_output_", "logd_followers")),
    Section("Where it goes", ("logd_driver_", "logd_forwarder_")),
    Section("The daemon", ("",)),
)
FAMILIES: Final[Sequence[Family]] = (
    *ContainerCollector.families,
    *PipelineCollector.families,
    *scrape.FAMILIES,
    *daemon.FAMILIES,
)
"""All of them."""


def main() -> None:
    """Print the document."""
    sys.stdout.write(document(FAMILIES))


def document(families: Sequence[Family]) -> str:
    """Return the whole text."""
    left = sorted(families, key=lambda family: family.name)
    text = HEAD
    for section in SECTIONS:
        rows = [family for family in left if family.name.startswith(section.names)]
        left = [family for family in left if family not in rows]
        if rows:
            text += f"\n## {section.title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
            text += "".join(map(_row, rows))
    return text


def _row(family: Family) -> str:
    kind = {"unknown": "untyped"}.get(family.kind, family.kind)
    labels = [*family.of, *family.labels]
    return f"| `{family.name}` | {kind} | {', '.join(f'`{one}`' for one in labels)} | {family.help} |\n"


if __name__ == "__main__":
    main()
