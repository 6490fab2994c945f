"""docs/writing-a-driver.md against the code: all there is is named, and the code in it works."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pluggy
import pytest

from logd import driver, hookspecs
from logd.batch import Batch, ContainerInfo, Dropped, Group, Partial, Record
from logd.driver import LogDriver, parse_options
from logd.processor import Processor, ProcessorFactory
from logd.record import STDOUT
from logd.testing import faults
from logd.testing.bench import Bench
from logd.testing.conformance import DriverConformance
from logd.testing.proxy import FaultProxy
from logd.testing.target import Target

TEXT = (Path(__file__).parents[2] / "docs" / "writing-a-driver.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NAMED = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)))))


def public(kind: type[Any]) -> set[str]:
    """Return the names that a class defines or annotates, and its authors are to know."""
    return {one for one in {*vars(kind), *vars(kind).get("__annotations__", {})} if not one.startswith("_")}


def hooks() -> set[str]:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return {one for one in vars(manager.hook) if not one.startswith("_")}


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("hooks", hooks()),
        ("LogDriver", public(LogDriver) | {"options"}),
        ("Batch", public(Batch) | {"container", "groups", "acknowledged", "memo"}),
        ("Group", set(Group._fields)),
        ("Record", set(Record._fields)),
        ("Partial", set(Partial._fields)),
        ("Dropped", set(Dropped._fields)),
        ("ContainerInfo", {one.name for one in fields(ContainerInfo)}),
        ("Processor", public(Processor)),
        ("ProcessorFactory", public(ProcessorFactory)),
        ("for options", {"opt", "text", "boolean", "whole", "one_of", "duration", "check_host"} & set(dir(driver))),
        ("conformance", set(DriverConformance.__annotations__) | {"shown"}),
        ("Target", public(Target) - {"log_opts", "received"}),
        ("faults", {one for one in vars(faults) if not one.startswith("_")} - {"Final", "Fault", "dataclass"}),
        ("FaultProxy", {FaultProxy.__name__, Bench.__name__}),
    ],
)
def test_everything_that_an_author_needs_is_named(what: str, names: set[str]) -> None:
    assert names
    assert names - NAMED == set(), what


def test_no_attribute_is_documented_that_is_not_there() -> None:
    tables = re.findall(r"\| attribute \|.*?\n\n", TEXT, re.DOTALL)
    listed = {name for table in tables for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)}
    assert listed - {"options"} <= public(LogDriver) | set(DriverConformance.__annotations__)


def test_the_default_of_each_attribute_is_the_documented_one() -> None:
    for kind in (LogDriver, DriverConformance):
        for name in public(kind):
            if shown := re.search(rf"^\| `{name}` \| `([^`]+)` \|", TEXT, re.MULTILINE):
                assert shown[1] == repr(getattr(kind, name)), name


def module_of(words: str) -> dict[str, Any]:
    """Run the example with these words in it, as a module."""
    (code,) = [one for one in CODE if words in one and "Conformance" not in one]
    module: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), module)
    return module


def test_the_driver_of_the_documentation_works() -> None:
    (kind,) = module_of("ExampleDriver")["logd_log_drivers"]()
    assert kind(parse_options("example log driver", kind.options_type, {})).options.example_port == 4242


def test_the_processor_of_the_documentation_works() -> None:
    (factory,) = module_of("ShortFactory")["logd_line_processors"]()
    options = parse_options("example", factory.options_type, {"shortest": "3"})
    processor = factory.make(options, ContainerInfo(id="0" * 64, name="web"))
    given = [Group(1, STDOUT, 0, 8, [b"no", b"long"])]
    assert processor.feed(given) == [Dropped(STDOUT, 0, 3, "short"), Group(1, STDOUT, 3, 8, [b"long"])]
    assert factory.make(parse_options("example", factory.options_type, {}), ContainerInfo(id="", name="")) is None
