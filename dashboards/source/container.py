"""One container, or a few: everything that is measured of it, on one time axis."""

from typing import Final

from grafana import AMBER, GREEN, RED, Json, Panel, dashboard, stat, variable

THESE: Final = 'instance=~"$instance",name=~"$container"'
OURS: Final = f'{THESE},name!=""'
"""`.*` alone would choose the root's and the parents' series too."""

STATES: Final = {"running": GREEN, "paused": AMBER, "restarting": RED, "exited": "text", "created": "blue", "dead": RED}


def gauge(name: str, labels: str = OURS) -> str:
    """Return a gauge for each container."""
    return f"sum by (name) ({name}{{{labels}}})"


def rate(name: str, labels: str = OURS, by: str = "name") -> str:
    """Return the rate of a counter for each container."""
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


LIFE: Final = [
    stat("Running", f'sum(logd_container_state{{{THESE},state="running"}})'),
    stat("Up since", f"min(container_start_time_seconds{{{OURS}}}) * 1000", "dateTimeFromNow"),
    stat("Last exit code", f"max(logd_container_exit_code{{{THESE}}})", bad=1),
    stat("Restarts", f"sum(logd_container_restarts_total{{{THESE}}})", bad=1),
    stat("Killed for memory", f"sum(container_oom_events_total{{{OURS}}})", bad=1),
    stat("Processes and threads", f"sum(container_threads{{{OURS}}})"),
    stat("Last output", f"max(logd_last_output_timestamp_seconds{{{THESE}}} > 0) * 1000", "dateTimeFromNow"),
    stat("Writable layer", f"sum(container_fs_usage_bytes{{{OURS}}})", "bytes"),
    Panel(
        "State",
        [(f"logd_container_state{{{THESE}}} == 1", "{{name}} {{state}}")],
        kind="state-timeline",
        height=6,
        mappings={"1": ("yes", GREEN)},
    ),
    Panel(
        "Health",
        [(f"container_health_state{{{OURS}}}", "{{name}}")],
        kind="state-timeline",
        height=6,
        mappings={"1": ("healthy", GREEN), "0": ("not healthy", RED), "-1": ("no check", "text")},
    ),
]

CPU: Final = [
    Panel(
        "CPU (cores)",
        [
            (rate("container_cpu_usage_seconds_total"), "{{name}}"),
            (rate("container_cpu_user_seconds_total"), "{{name}} user"),
            (rate("container_cpu_system_seconds_total"), "{{name}} system"),
            (
                f"sum by (name) (container_spec_cpu_quota{{{OURS}}} / container_spec_cpu_period{{{OURS}}})",
                "{{name}} quota",
            ),
        ],
    ),
    Panel(
        "Throttled",
        [
            (
                f"{rate('container_cpu_cfs_throttled_periods_total')} / {rate('container_cpu_cfs_periods_total')}",
                "{{name}} periods",
            ),
            (rate("container_cpu_cfs_throttled_seconds_total"), "{{name}} seconds a second"),
        ],
        "percentunit",
        steps=[(0.25, AMBER)],
    ),
]

MEMORY: Final = [
    Panel(
        "Memory",
        [
            (gauge("container_memory_working_set_bytes"), "{{name}} working set"),
            (gauge("container_memory_rss"), "{{name}} anonymous"),
            (gauge("container_memory_cache"), "{{name}} page cache"),
            (gauge("container_memory_swap"), "{{name}} swap"),
            (f"sum by (name) (container_spec_memory_limit_bytes{{{OURS}}} > 0)", "{{name}} limit"),
        ],
        "bytes",
    ),
    Panel(
        "Memory: faults and failures",
        [
            (
                rate("container_memory_failures_total", f'{OURS},failure_type="pgmajfault",scope="container"'),
                "{{name}} major faults",
            ),
            (rate("container_oom_events_total"), "{{name}} kills"),
        ],
        "cps",
        description="A major fault waits for the disk.",
    ),
]

PRESSURE: Final = [
    Panel(
        f"Waiting for {resource}",
        [
            (rate(f"container_pressure_{metric}_waiting_seconds_total"), "{{name}} some"),
            (rate(f"container_pressure_{metric}_stalled_seconds_total"), "{{name}} all"),
        ],
        "percentunit",
        width=8,
        description="Part of the time in which some, or all, of its processes waited (PSI).",
    )
    for resource, metric in (("CPU", "cpu"), ("memory", "memory"), ("disk", "io"))
]

DISK_AND_NETWORK: Final = [
    Panel(
        "Disk",
        [
            (rate("container_fs_reads_bytes_total"), "{{name}} read"),
            (rate("container_fs_writes_bytes_total"), "{{name}} written"),
        ],
        "Bps",
    ),
    Panel(
        "Disk operations",
        [
            (rate("container_fs_reads_total"), "{{name}} reads"),
            (rate("container_fs_writes_total"), "{{name}} writes"),
        ],
        "iops",
    ),
    Panel(
        "Network",
        [
            (rate("container_network_receive_bytes_total", by="name, interface"), "{{name}} {{interface}} received"),
            (rate("container_network_transmit_bytes_total", by="name, interface"), "{{name}} {{interface}} sent"),
        ],
        "Bps",
    ),
    Panel(
        "Network: dropped and damaged packets",
        [
            (rate("container_network_receive_packets_dropped_total"), "{{name}} received, dropped"),
            (rate("container_network_transmit_packets_dropped_total"), "{{name}} sent, dropped"),
            (rate("container_network_receive_errors_total"), "{{name}} received, damaged"),
            (rate("container_network_transmit_errors_total"), "{{name}} sent, damaged"),
        ],
        "pps",
    ),
]

LOGS: Final = [
    Panel(
        "Lines by level", [(rate("logd_lines_total", THESE, "name, level"), "{{name}} {{level}}")], "cps", stacked=True
    ),
    Panel(
        "Output",
        [(rate("logd_captured_bytes_total", THESE, "name, stream"), "{{name}} {{stream}}")],
        "Bps",
        stacked=True,
    ),
    Panel(
        "Driver lag",
        [(f"max by (name, driver) (logd_driver_lag_seconds{{{THESE}}})", "{{name}} {{driver}}")],
        "s",
        steps=[(300, RED)],
    ),
    Panel("Kept in the store", [(gauge("logd_store_disk_bytes", THESE), "{{name}}")], "bytes"),
]


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "logd-container",
        "logd / Container",
        "Everything that is measured of a container.",
        [
            variable("instance", "Host", "label_values(logd_build_info, instance)"),
            variable("container", "Container", 'label_values(logd_container_info{instance=~"$instance"}, name)'),
        ],
        [
            ("Life", LIFE),
            ("CPU", CPU),
            ("Memory", MEMORY),
            ("Pressure", PRESSURE),
            ("Disk and network", DISK_AND_NETWORK),
            ("Logs", LOGS),
        ],
    )
