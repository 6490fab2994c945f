"""All containers of all daemons at a glance: who needs looking at."""

from typing import Final

from grafana import AMBER, RED, Json, Panel, dashboard, stat, variable

HERE: Final = 'instance=~"$instance"'
OURS: Final = f'{HERE},name!=""'
"""Of cAdvisor's names: those of containers, without the root's and the parents' series."""
BY_NAME: Final = "sum by (instance, name)"
LEGEND: Final = "{{name}}"

CPU: Final = f"{BY_NAME} (rate(container_cpu_usage_seconds_total{{{OURS}}}[$__rate_interval]))"
MEMORY: Final = f"{BY_NAME} (container_memory_working_set_bytes{{{OURS}}})"
LIMITED: Final = (
    f"{BY_NAME} (container_memory_working_set_bytes{{{OURS}}}) "
    f"/ {BY_NAME} (container_spec_memory_limit_bytes{{{OURS}}} > 0)"
)


def rate(name: str, labels: str = HERE) -> str:
    """Return the rate of a counter for each container."""
    return f"{BY_NAME} (rate({name}{{{labels}}}[$__rate_interval]))"


OVERVIEW: Final = [
    stat("Running", f'sum(logd_container_state{{{HERE},state="running"}})'),
    stat("Not healthy", f"count(container_health_state{{{OURS}}} == 0) or vector(0)", bad=1),
    stat("Restarts, 1 h", f"round(sum(increase(logd_container_restarts_total{{{HERE}}}[1h])))", bad=3),
    stat("Killed for memory, 1 h", f"round(sum(increase(container_oom_events_total{{{OURS}}}[1h])))", bad=1),
    stat(
        "CPU",
        f'sum(rate(container_cpu_usage_seconds_total{{{HERE},id="/"}}[$__rate_interval])) '
        f"/ sum(machine_cpu_cores{{{HERE}}})",
        "percentunit",
        bad=0.9,
        description="Of the machines, whoever uses it.",
    ),
    stat(
        "Memory",
        f'sum(container_memory_working_set_bytes{{{HERE},id="/"}}) / sum(machine_memory_bytes{{{HERE}}})',
        "percentunit",
        bad=0.9,
        description="Of the machines, whoever uses it, without the page cache that can be given back.",
    ),
    stat("Log output", f"sum(rate(logd_captured_bytes_total{{{HERE}}}[$__rate_interval]))", "Bps"),
    stat("Largest driver lag", f"max(logd_driver_lag_seconds{{{HERE}}}) or vector(0)", "s", bad=300),
]

TABLE: Final = Panel(
    "Containers",
    [
        (f'max by (instance, name, id) (logd_container_state{{{HERE},state="running"}})', ""),
        (f"max by (instance, name, id) (container_health_state{{{OURS}}})", ""),
        (f"sum by (instance, name, id) (rate(container_cpu_usage_seconds_total{{{OURS}}}[$__rate_interval]))", ""),
        (f"max by (instance, name, id) (container_memory_working_set_bytes{{{OURS}}})", ""),
        (
            f"max by (instance, name, id) (container_memory_working_set_bytes{{{OURS}}} "
            f"/ (container_spec_memory_limit_bytes{{{OURS}}} > 0))",
            "",
        ),
        (f"sum by (instance, name, id) (rate(logd_captured_bytes_total{{{HERE}}}[$__rate_interval]))", ""),
        (
            f'sum by (instance, name, id) (rate(logd_lines_total{{{HERE},level=~"critical|error"}}[$__rate_interval]))',
            "",
        ),
        (f"max by (instance, name, id) (logd_container_restarts_total{{{HERE}}})", ""),
        (f"max by (instance, name, id) (logd_driver_lag_seconds{{{HERE}}})", ""),
    ],
    kind="table",
    width=24,
    height=10,
    columns={
        "A": ("running", "bool_yes_no"),
        "B": ("health", "short"),
        "C": ("CPU (cores)", "short"),
        "D": ("memory", "bytes"),
        "E": ("of its limit", "percentunit"),
        "F": ("log", "Bps"),
        "G": ("errors a second", "short"),
        "H": ("restarts", "short"),
        "I": ("driver lag", "s"),
    },
    hidden=("id",),
    description="health: 1 healthy, 0 not (yet), -1 without a check.",
)

RESOURCES: Final = [
    Panel("CPU (cores)", [(CPU, LEGEND)], stacked=True),
    Panel("Memory (working set)", [(MEMORY, LEGEND)], "bytes", stacked=True),
    Panel("Memory of the limit", [(LIMITED, LEGEND)], "percentunit", steps=[(0.9, RED)], maximum=1),
    Panel(
        "Throttled periods",
        [
            (
                f"{rate('container_cpu_cfs_throttled_periods_total', OURS)} "
                f"/ {rate('container_cpu_cfs_periods_total', OURS)}",
                LEGEND,
            )
        ],
        "percentunit",
        steps=[(0.25, AMBER)],
        maximum=1,
        description="Parts of the periods in which a CPU quota was used up.",
    ),
    Panel("Received", [(rate("container_network_receive_bytes_total", OURS), LEGEND)], "Bps"),
    Panel("Sent", [(rate("container_network_transmit_bytes_total", OURS), LEGEND)], "Bps"),
    Panel("Read from disk", [(rate("container_fs_reads_bytes_total", OURS), LEGEND)], "Bps"),
    Panel("Written to disk", [(rate("container_fs_writes_bytes_total", OURS), LEGEND)], "Bps"),
    Panel(
        "Waiting for memory",
        [(rate("container_pressure_memory_waiting_seconds_total", OURS), LEGEND)],
        "percentunit",
        steps=[(0.1, RED)],
        description="Part of the time in which at least one process waited (PSI, some).",
    ),
    Panel(
        "Waiting for CPU",
        [(rate("container_pressure_cpu_waiting_seconds_total", OURS), LEGEND)],
        "percentunit",
        description="Part of the time in which at least one process waited (PSI, some).",
    ),
]

LOGS: Final = [
    Panel("Log output", [(rate("logd_captured_bytes_total"), LEGEND)], "Bps", stacked=True),
    Panel(
        "Lines of the levels error and critical",
        [(rate("logd_lines_total", f'{HERE},level=~"critical|error"'), LEGEND)],
        "cps",
    ),
]


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "logd-fleet",
        "logd / Fleet",
        "All containers: state, resources, log output.",
        [variable("instance", "Host", "label_values(logd_build_info, instance)")],
        [
            ("Overview", OVERVIEW),
            ("Containers", [TABLE]),
            ("Resources", RESOURCES),
            ("Logs", LOGS),
        ],
    )
