"""What keeper and shims have imported: each module costs every container memory."""

import subprocess
import sys
from pathlib import Path

import logd

FORBIDDEN = {"asyncio", "concurrent", "inspect", "logging", "multiprocessing", "random", "shutil", "subprocess"}
FORBIDDEN |= {"tempfile", "threading", "traceback", "pathlib", "dataclasses", "msgspec", "orjson", "http", "urllib"}
LOGD = {
    "logd.record",
    "logd.logstore.ballast",
    "logd.logstore.claims",
    "logd.logstore.inventory",
    "logd.logstore.opening",
    "logd.logstore.options",
    "logd.logstore.recovery",
    "logd.logstore.retention",
    "logd.logstore.segment",
    "logd.logstore.totals",
    "logd.logstore.writer",
    "logd.runtime.birth",
    "logd.runtime.capture",
    "logd.runtime.children",
    "logd.runtime.command",
    "logd.runtime.control",
    "logd.runtime.errand",
    "logd.runtime.exec_intake",
    "logd.runtime.exec_log",
    "logd.runtime.exec_output",
    "logd.runtime.exec_protocol",
    "logd.runtime.exec_shim",
    "logd.runtime.handlers",
    "logd.runtime.keeper",
    "logd.runtime.kinship",
    "logd.runtime.null",
    "logd.runtime.oom",
    "logd.runtime.packets",
    "logd.runtime.packing",
    "logd.runtime.pidfd",
    "logd.runtime.pipes",
    "logd.runtime.protocol",
    "logd.runtime.rehearsal",
    "logd.runtime.shim",
    "logd.runtime.terminal",
    "logd.runtime.zygote",
}


def test_keeper_and_shims_import_the_writer_and_little_of_the_standard_library() -> None:
    root = Path(logd.__file__).parent.parent
    imports = "import logd.runtime.keeper, logd.runtime.exec_shim, logd.runtime.rehearsal"  # the zygote's are late
    code = f"import sys; sys.path.insert(0, {str(root)!r}); {imports}; print(*sys.modules)"
    command = [sys.executable, "-S", "-E", "-s", "-c", code]
    modules = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert {name.partition(".")[0] for name in modules} & FORBIDDEN == set()
    packages = {"logd", "logd.logstore", "logd.runtime"}
    assert {name for name in modules if name.partition(".")[0] == "logd"} - packages == LOGD
