"""docs/metrics.md and the registry say the same, and the registry is what is served."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as parse_text
from scraping import enable_metrics, metrics_address, scrape

from logd.metrics import daemon
from logd.metrics.document import FAMILIES, document

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_document_is_what_the_registry_says():
    again = "made by `python -m logd.metrics.document > docs/metrics.md`"
    assert DOCUMENT.read_text() == document(FAMILIES), again


def test_no_metric_is_there_twice():
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)


def test_everything_that_is_served_is_in_the_registry_with_its_type_and_labels(make_daemon, busybox_tar):
    watched = make_daemon()
    enable_metrics(watched)
    watched.start()
    watched.docker("import", "-", "busybox:latest", stdin=busybox_tar, text=False)
    watched.docker("run", "-d", "--name", "some", "--cpus", "0.5", "busybox", "sleep", "100000")
    seen = scrape(metrics_address(watched))
    known = {family.name: family for family in FAMILIES}
    assert len(seen.families) > 60
    for served in seen.families.values():
        name = served.name if served.name in known else f"{served.name}_total"
        family = known[name]
        kind = {"info": "gauge"}.get(family.kind, family.kind)
        assert served.type == kind, name
        assert served.documentation == family.help
        for sample in served.samples:
            plain = {label for label in sample.labels if not label.startswith("container_label_")}
            assert plain - {"le"} <= {*family.of, *family.labels}, sample
            assert sample.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") == name


def test_metrics_of_the_daemon_have_their_series_before_anything_has_happened(make_daemon):
    watched = make_daemon()
    enable_metrics(watched)
    watched.start()
    text = scrape(metrics_address(watched)).text
    served = {family.name: family for family in parse_text(text)}
    for kind, actions in daemon.ACTIONS.items():
        family = daemon.TIMERS[kind]
        found = {one.labels[family.labels[0]] for one in served[family.name].samples}
        assert found == set(actions)
