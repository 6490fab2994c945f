"""What becomes of an OCI runtime's last words."""

import json

import pytest

from logd.runtime.command import LOG_NAME, failure


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        ('exec: "nope": executable file not found in $PATH', 127),
        ("executable file `nope` not found in $PATH: No such file or directory", 127),  # crun
        ('exec: "/etc/passwd": permission denied', 126),
        ("open executable: Permission denied", 126),  # crun
        ("cgroups in hybrid mode not supported, drop all controllers from cgroupv2", 128),
    ],
)
def test_the_exit_code_of_a_start_that_failed_is_dockers_with_any_runtime(tmp_path, words, exit_code):
    lines = [{"level": "info", "msg": "not this"}, {"level": "error", "msg": words}]
    (tmp_path / LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = f"failed to create task for container: OCI runtime create failed: {words}"
    assert failure(str(tmp_path), "create", 256) == (text, exit_code)
