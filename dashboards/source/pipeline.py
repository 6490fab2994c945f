"""From a container's output to its destinations: what is late, what waits, what was lost, and whether it adds up."""

from typing import Final

from grafana import AMBER, GREEN, RED, Json, Panel, dashboard, stat, variable

HERE: Final = 'instance=~"$instance"'
THESE: Final = f'{HERE},name=~"$container"'
DRIVERS: Final = f'{THESE},driver=~"$driver"'
LEGEND: Final = "{{name}} {{driver}}"
INTENDED: Final = "filtered|rate-limit|sampled|empty|blank"
"""Reasons of what is left out as it was told, as in rules/recording.yml."""


def each_driver(expr: str) -> str:
    """Return an expression for each driver of each container."""
    return f"sum by (name, driver) ({expr})"


def rate(name: str, labels: str, by: str) -> str:
    """Return the rate of a counter."""
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


OVERVIEW: Final = [
    stat("Captured", f"sum(rate(logd_captured_bytes_total{{{THESE}}}[$__rate_interval]))", "Bps"),
    stat("Delivered", f"sum(rate(logd_driver_delivered_bytes_total{{{DRIVERS}}}[$__rate_interval]))", "Bps"),
    stat("Waiting", f"sum(logd_driver_buffered_bytes{{{DRIVERS}}})", "bytes"),
    stat("Largest lag", f"max(logd_driver_lag_seconds{{{DRIVERS}}})", "s", bad=300),
    stat(
        "Lost, 1 h",
        f'sum(increase(logd_driver_dropped_bytes_total{{{DRIVERS},reason!~"{INTENDED}"}}[1h])) or vector(0)',
        "bytes",
        bad=1,
        description="Given up for a destination; without what is left out as it was told.",
    ),
    stat(
        "Not kept, 1 h",
        f"sum(increase(logd_store_dropped_bytes_total{{{THESE}}}[1h])) or vector(0)",
        "bytes",
        bad=1,
        description="Of containers' output, for example because the disk was full.",
    ),
    stat(
        "Not accounted for",
        f"sum(abs(logd_driver_unaccounted_bytes{{{DRIVERS}}}))",
        "bytes",
        bad=1,
        description="captured - delivered - unconfirmed - waiting - gone - dropped: 0, or there is a bug.",
    ),
    stat("Drivers down", f"count(logd_driver_up{{{DRIVERS}}} == 0) or vector(0)", bad=1),
]

DELIVERY: Final = [
    Panel(
        "State",
        [(f"max by (name, driver, state) (logd_driver_state{{{DRIVERS}}}) == 1", "{{name}} {{driver}} {{state}}")],
        kind="state-timeline",
        mappings={"1": ("yes", GREEN)},
    ),
    Panel(
        "Lag",
        [(f"max by (name, driver) (logd_driver_lag_seconds{{{DRIVERS}}})", LEGEND)],
        "s",
        steps=[(300, RED)],
        description="Age of the oldest line that is on its way or tried again.",
    ),
    Panel("Delivered", [(rate("logd_driver_delivered_bytes_total", DRIVERS, "name, driver"), LEGEND)], "Bps"),
    Panel("Records", [(rate("logd_driver_records_total", DRIVERS, "name, driver"), LEGEND)], "cps"),
    Panel("Waiting", [(each_driver(f"logd_driver_buffered_bytes{{{DRIVERS}}}"), LEGEND)], "bytes"),
    Panel("Retries", [(rate("logd_driver_retries_total", DRIVERS, "name, driver"), LEGEND)], "cps"),
    Panel(
        "Dropped, by reason",
        [(rate("logd_driver_dropped_bytes_total", DRIVERS, "name, driver, reason"), f"{LEGEND} {{{{reason}}}}")],
        "Bps",
    ),
    Panel(
        "Account of all drivers",
        [
            (f"sum(logd_driver_captured_bytes_total{{{DRIVERS}}})", "captured"),
            (f"sum(logd_driver_delivered_bytes_total{{{DRIVERS}}})", "delivered"),
            (f"sum(logd_driver_unconfirmed_bytes_total{{{DRIVERS}}})", "unconfirmed"),
            (f"sum(logd_driver_buffered_bytes{{{DRIVERS}}})", "waiting"),
            (f"sum(logd_driver_unread_gap_bytes{{{DRIVERS}}})", "gone before the driver came to it"),
            (f"sum(logd_driver_dropped_bytes_total{{{DRIVERS}}})", "dropped"),
        ],
        "bytes",
        description="captured = delivered + unconfirmed + waiting + gone + dropped",
    ),
]

STORE: Final = [
    Panel("Captured", [(rate("logd_captured_bytes_total", THESE, "name"), "{{name}}")], "Bps", stacked=True),
    Panel("Lines by level", [(rate("logd_lines_total", THESE, "level"), "{{level}}")], "cps", stacked=True),
    Panel("On disk", [(f"sum by (name) (logd_store_disk_bytes{{{THESE}}})", "{{name}}")], "bytes", stacked=True),
    Panel("Segments", [(f"sum by (name) (logd_store_segments{{{THESE}}})", "{{name}}")]),
    Panel(
        "Let go",
        [
            (rate("logd_store_expired_bytes_total", THESE, "name"), "{{name}} by its bounds"),
            (rate("logd_store_cleared_bytes_total", THESE, "name"), "{{name}} cleared"),
            (rate("logd_store_dropped_bytes_total", THESE, "name, reason"), "{{name}} not kept: {{reason}}"),
        ],
        "Bps",
    ),
    Panel("Followers", [(f"sum by (name) (logd_followers{{{THESE}}})", "{{name}}")]),
]

PROCESSES: Final = [
    Panel(
        "Forwarders",
        [(f"logd_forwarder_up{{{HERE}}}", "{{plugin}}")],
        kind="state-timeline",
        height=6,
        mappings={"1": ("up", GREEN), "0": ("down", RED)},
    ),
    Panel(
        "Forwarders: event loop lag",
        [(f"logd_forwarder_loop_lag_seconds{{{HERE}}}", "{{plugin}}")],
        "s",
        height=6,
        steps=[(1, AMBER)],
        description="A driver that does not give the others their turn.",
    ),
    Panel(
        "Forwarders: deliveries and restarts",
        [
            (f"logd_forwarder_deliveries{{{HERE}}}", "{{plugin}} deliveries"),
            (f"increase(logd_forwarder_restarts_total{{{HERE}}}[$__rate_interval])", "{{plugin}} restarts"),
        ],
    ),
    Panel(
        "API requests",
        [(f"sum by (code) (rate(logd_api_requests_total{{{HERE}}}[$__rate_interval]))", "{{code}}")],
        "reqps",
    ),
    Panel("API streams", [(f"sum by (kind) (logd_api_streams{{{HERE}}})", "{{kind}}")]),
    Panel(
        "The daemon",
        [(f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])", "{{instance}} CPU (cores)")],
    ),
    Panel("The daemon's memory", [(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}")], "bytes"),
    Panel(
        "The daemon's descriptors",
        [(f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}", "{{instance}}")],
        "percentunit",
        steps=[(0.8, RED)],
    ),
    Panel(
        "A scrape's collectors",
        [(f"logd_scrape_collector_duration_seconds{{{HERE}}}", "{{instance}} {{collector}}")],
        "s",
        stacked=True,
    ),
    Panel(
        "Engine actions",
        [
            (
                f"sum by (action) (increase(engine_daemon_container_actions_seconds_sum{{{HERE}}}[1h])) "
                f"/ (sum by (action) (increase(engine_daemon_container_actions_seconds_count{{{HERE}}}[1h])) > 0)",
                "{{action}}",
            )
        ],
        "s",
        description="How long an action took, on the average of the last hour.",
    ),
]


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "logd-pipeline",
        "logd / Pipeline",
        "Log output on its way: captured, stored, delivered, late, lost.",
        [
            variable("instance", "Host", "label_values(logd_build_info, instance)"),
            variable("container", "Container", 'label_values(logd_container_info{instance=~"$instance"}, name)'),
            variable(
                "driver", "Driver", 'label_values(logd_driver_up{instance=~"$instance",name=~"$container"}, driver)'
            ),
        ],
        [("Overview", OVERVIEW), ("Delivery", DELIVERY), ("Store", STORE), ("Processes", PROCESSES)],
    )
