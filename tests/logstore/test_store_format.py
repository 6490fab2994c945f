"""The format's documentation holds: its reader reads a store, its tables are the code's."""

import re
import subprocess
import sys
from pathlib import Path

from store_builder import StoreBuilder

from logd.logstore.segment import GAP_REASONS, Kind
from logd.record import STDERR, STDOUT

DOCUMENT = Path(__file__).parents[2] / "docs" / "store-format.md"


def test_the_documented_reader_shows_a_log_in_its_order_and_what_is_missing(tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "show.py").write_text(program)
    store = StoreBuilder(tmp_path / "log")
    store.mark(Kind.BEGIN, 1, 1)
    store.write(STDOUT, b"one\n", 2)
    store.write(STDERR, b"two\n")
    store.write(STDOUT, b"th")
    store.gap(STDOUT, 1000)
    store.write(STDOUT, b"ree\n")
    shown = subprocess.run([sys.executable, tmp_path / "show.py", store.folder], capture_output=True, check=True)
    assert shown.stdout == b"one\ntwo\nthree\n"
    assert shown.stderr == b"1000 bytes of stdout are missing, reason 1\n"


def test_the_tables_name_every_kind_and_reason():
    rows = {tuple(row) for row in re.findall(r"^\| (\d+) \| ([\w-]+) \|", DOCUMENT.read_text(), re.MULTILINE)}
    expected = {(str(kind.value), kind.name) for kind in Kind} | {
        (str(code), name) for code, name in GAP_REASONS.items()
    }
    assert expected <= rows
