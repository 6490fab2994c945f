"""A scrape among collectors: who asks together shares one, who fails costs its own series, and no file is opened."""

import asyncio
import sys
import threading
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from logd.events import EventBus
from logd.metrics import scrape as scraping
from logd.metrics.daemon import BUILD, ENGINE, DaemonMetrics, Identity
from logd.metrics.families import Collector, Family
from logd.metrics.scrape import Scraper, Wanted

TEXT = Wanted("text", gzip=False)
VALUE = Family("some_value", "gauge", "A value.")
OTHER = Family("other_value", "gauge", "Another.")


class Counting(Collector):
    """Counts how often it is asked; each time once `release` is set."""

    name = "counting"
    families = (VALUE,)

    def __init__(self):
        self.asked = 0
        self.release = threading.Event()
        self.release.set()
        self.begun = threading.Event()

    def collect(self, page):
        self.begun.set()
        assert self.release.wait(30)
        self.asked += 1
        page.add(VALUE, self.asked)


class Failing(Collector):
    """Writes something and fails, in `collect` or before."""

    name = "failing"
    families = (OTHER,)

    def __init__(self):
        self.fails_in = "collect"

    async def gather(self):
        if self.fails_in == "gather":
            raise OSError("nothing there")
        if self.fails_in == "time":
            await asyncio.Event().wait()

    def collect(self, page):
        page.add(OTHER, 1)
        if self.fails_in == "collect":
            raise OSError("half of it")


@pytest.fixture
def daemon_metrics():
    identity = Identity(dict.fromkeys(BUILD.labels, "x"), dict.fromkeys(ENGINE.labels, "x"), 2, 1 << 30)
    return DaemonMetrics(SimpleNamespace(containers=list), EventBus(), SimpleNamespace(checks=0, failed=0), identity)


@pytest.fixture
async def make_scraper(daemon_metrics):
    made = []

    def make(*collectors):
        made.append(Scraper(daemon_metrics, collectors))
        return made[-1]

    yield make
    for one in made:
        one.close()


def values(body):
    return {sample.name: sample.value for family in parse_text(body.decode()) for sample in family.samples}


async def test_all_who_ask_during_a_scrape_share_the_next_one(make_scraper):
    counting = Counting()
    scraper = make_scraper(counting)
    counting.release.clear()
    first = asyncio.ensure_future(scraper.page(TEXT))
    await asyncio.to_thread(counting.begun.wait, 30)
    others = [asyncio.ensure_future(scraper.page(TEXT)) for _ in range(20)]
    await asyncio.sleep(0)
    counting.release.set()
    assert values(await first)["some_value"] == 1
    assert {values(one)["some_value"] for one in await asyncio.gather(*others)} == {2}
    assert counting.asked == 2


async def test_who_goes_away_does_not_stop_the_scrape_of_others(make_scraper):
    counting = Counting()
    scraper = make_scraper(counting)
    counting.release.clear()
    leaving, staying = (asyncio.ensure_future(scraper.page(TEXT)) for _ in range(2))
    await asyncio.to_thread(counting.begun.wait, 30)
    leaving.cancel()
    counting.release.set()
    assert values(await staying)["some_value"] == 1


@pytest.mark.parametrize("fails_in", ["collect", "gather", "time"])
async def test_a_collector_that_fails_costs_its_own_series_only(make_scraper, monkeypatch, caplog, fails_in):
    caplog.set_level("INFO")
    monkeypatch.setattr(scraping, "GATHER_S", 0.05)
    failing = Failing()
    scraper = make_scraper(failing, Counting())
    failing.fails_in = fails_in
    for _ in range(2):
        found = parse_text((await scraper.page(TEXT)).decode())
        series = {(one.name, one.labels.get("collector")): one.value for family in found for one in family.samples}
        assert ("other_value", None) not in series
        assert ("some_value", None) in series
        assert series["logd_scrape_collector_success", "failing"] == 0
        assert series["logd_scrape_collector_success", "counting"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    failing.fails_in = ""
    assert values(await scraper.page(TEXT))["other_value"] == 1
    assert "succeeds again" in caplog.text


async def test_the_event_loop_goes_on_during_a_scrape(make_scraper):
    counting = Counting()
    scraper = make_scraper(counting)
    counting.release.clear()
    page = asyncio.ensure_future(scraper.page(TEXT))
    await asyncio.to_thread(counting.begun.wait, 30)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not page.done()
    counting.release.set()
    await page


async def test_the_daemons_own_metrics_open_no_file(make_scraper):
    scraper = make_scraper(Counting())
    await scraper.page(TEXT)
    opened = []
    watching = True
    sys.addaudithook(lambda event, arguments: opened.append(arguments) if watching and event == "open" else None)
    try:
        await scraper.page(TEXT)
    finally:
        watching = False
    assert opened == []


async def test_requests_are_counted_by_what_can_not_be_made_up(daemon_metrics, make_scraper):
    daemon_metrics.answered("GET", "/containers/{name}/json", 404)
    daemon_metrics.answered("MADEUP", "", 404)
    text = (await make_scraper().page(TEXT)).decode()
    assert 'logd_api_requests_total{code="404",method="GET",route="/containers/{name}/json"} 1.0' in text
    assert 'logd_api_requests_total{code="404",method="other",route="other"} 1.0' in text
    assert "MADEUP" not in text
