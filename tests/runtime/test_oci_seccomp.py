"""Docker's seccomp profile format, decided for one container."""

import json

import pytest

from logd.errors import InvalidParameter
from logd.runtime import capabilities, seccomp
from logd.runtime.security import SecurityOptions, parse_security_options, seccomp_section
from logd.spec import HostConfig

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
        {"name": "personality", "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
    ],
}


def rules(capabilities_=(), machine="x86_64"):
    section = seccomp.translate(PROFILE, capabilities_, machine=machine, kernel="6.1.0-18-amd64")
    return {(rule["names"][0], rule["action"].removeprefix("SCMP_ACT_")) for rule in section["syscalls"]}


def test_conditions_are_decided_by_capability_architecture_and_kernel():
    common = {("read", "ALLOW"), ("ptrace", "ALLOW"), ("personality", "ALLOW")}
    assert rules() == common | {("mount", "ERRNO"), ("arch_prctl", "ALLOW")}
    assert rules(["CAP_SYS_ADMIN"]) == common | {("mount", "ALLOW"), ("arch_prctl", "ALLOW")}
    assert rules(machine="aarch64") == common | {("mount", "ERRNO"), ("cacheflush", "ALLOW")}


def test_the_section_is_in_the_oci_format():
    section = seccomp.translate(PROFILE, [], machine="x86_64", kernel="6.1.0")
    assert section["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert section["defaultErrnoRet"] == 38
    assert section["syscalls"][-1] == {
        "names": ["personality"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
    }
    assert {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1} in section["syscalls"]
    assert not any({"includes", "excludes"} & rule.keys() for rule in section["syscalls"])


def allowed(section):
    return {name for rule in section["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_the_distributions_profile_is_found_and_allows_by_capability_what_docker_does():
    profile = seccomp.default_profile()
    plain = allowed(seccomp.translate(profile, capabilities.DEFAULT))
    with_all = allowed(seccomp.translate(profile, capabilities.ALL))
    admin = {"mount", "umount2", "unshare", "setns", "bpf", "clone3", "reboot", "syslog", "mbind", "fsopen"}
    assert admin <= with_all - plain
    assert {"read", "write", "execve", "clone", "fork", "futex"} <= plain
    assert not {"keyctl", "pivot_root", "add_key"} & with_all


def test_new_namespaces_are_denied_but_processes_are_not():
    section = seccomp.translate(seccomp.default_profile(), capabilities.DEFAULT, machine="x86_64")
    clone, *denied = [rule for rule in section["syscalls"] if "clone" in rule["names"]]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    assert {(rule["action"], rule["errnoRet"], rule["args"][0]["valueTwo"]) for rule in denied} == {
        ("SCMP_ACT_ERRNO", 1, 1 << bit) for bit in (17, 25, 26, 27, 28, 29, 30)
    }
    (clone3,) = [rule for rule in section["syscalls"] if "clone3" in rule["names"]]
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_calls_are_allowed_by_any_of_dockers_capabilities():
    def given(*more):
        return allowed(seccomp.translate(seccomp.default_profile(), {*capabilities.DEFAULT, *more}))

    gated = {"bpf", "perf_event_open", "syslog", "pidfd_getfd"}
    assert not gated & given()
    assert gated & given("CAP_SYS_ADMIN") == {"bpf", "perf_event_open", "syslog"}
    for name, call in (("BPF", "bpf"), ("PERFMON", "perf_event_open"), ("SYS_PTRACE", "pidfd_getfd")):
        assert gated & given(f"CAP_{name}") == {call}


def test_calls_that_docker_allows_and_podman_does_not_are_allowed():
    section = seccomp.translate(seccomp.default_profile(), capabilities.DEFAULT)
    assert {"io_pgetevents", "vmsplice"} <= allowed(section)
    denied = [name for rule in section["syscalls"] if rule["action"] == "SCMP_ACT_ERRNO" for name in rule["names"]]
    assert not {"io_pgetevents", "vmsplice"} & set(denied)


def test_a_profile_with_conditions_of_its_own_is_not_changed():
    assert seccomp.tighten(PROFILE) == PROFILE


def test_a_profile_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(InvalidParameter, match=r"no seccomp profile: .*/none\.json do not exist"):
        seccomp.default_profile(str(tmp_path / "none.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidParameter, match=r"Decoding seccomp profile failed: .*broken\.json"):
        seccomp.default_profile(str(tmp_path / "broken.json"))
    with pytest.raises(InvalidParameter, match="a rule is malformed"):
        seccomp.translate({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"]}]}, [])
    with pytest.raises(InvalidParameter, match="use either 'architectures' or 'archMap'"):
        seccomp.parse(json.dumps({**PROFILE, "architectures": ["SCMP_ARCH_X86"]}), "file")


def section_of(host, default=""):
    return seccomp_section(parse_security_options(host), [], privileged=host.privileged, default_path=default)


def test_the_profile_is_chosen_by_option_then_privilege_then_the_daemon(tmp_path):
    (tmp_path / "own.json").write_text('{"defaultAction": "SCMP_ACT_LOG"}')
    own = str(tmp_path / "own.json")
    assert section_of(HostConfig())["defaultAction"] == "SCMP_ACT_ERRNO"
    assert section_of(HostConfig(), own)["defaultAction"] == "SCMP_ACT_LOG"
    assert section_of(HostConfig(), "unconfined") is None
    assert section_of(HostConfig(privileged=True), own) is None
    assert section_of(HostConfig(security_opt=["seccomp=unconfined"]), own) is None
    assert section_of(HostConfig(security_opt=["seccomp:unconfined"]), own) is None
    assert section_of(HostConfig(security_opt=["seccomp=builtin"]), "unconfined")["defaultAction"] == "SCMP_ACT_ERRNO"
    sent = HostConfig(security_opt=['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'], privileged=True)
    assert section_of(sent)["defaultAction"] == "SCMP_ACT_ALLOW"


def test_security_options_are_read_or_refused():
    accepted = ["no-new-privileges:true", "label=disable", "apparmor=unconfined", "seccomp=unconfined"]
    assert parse_security_options(HostConfig(security_opt=accepted)) == SecurityOptions(True, "unconfined", "")
    for option, words in [
        ("nonsense", 'invalid --security-opt 1: "nonsense"'),
        ("x=y", 'invalid --security-opt 2: "x=y"'),
        ("no-new-privileges=maybe", "invalid --security-opt 2"),
        ("seccomp={", "Decoding seccomp profile failed"),
        ("seccomp=/a/file", "Decoding seccomp profile failed"),
        ("label=type:x", "SELinux labels are not supported"),
    ]:
        with pytest.raises(InvalidParameter, match=words):
            parse_security_options(HostConfig(security_opt=[option]))


def test_capabilities_follow_dockers_rules():
    def of(add=(), drop=(), privileged=False):
        return set(capabilities.resolve(add, drop, privileged=privileged))

    default = set(capabilities.DEFAULT)
    assert of() == default
    assert of(["NET_ADMIN"]) == default | {"CAP_NET_ADMIN"}
    assert of(["kill"], ["ALL"]) == {"CAP_KILL"}
    assert of(["ALL"], ["CAP_CHOWN"]) == capabilities.held() - {"CAP_CHOWN"}
    assert of(["chown"], ["chown"]) == default  # adding beats dropping
    assert of(privileged=True) == capabilities.held()
    for add, drop, option in ((["FOO"], [], "CapAdd"), ([], ["FOO"], "CapDrop")):
        with pytest.raises(InvalidParameter, match=f'^invalid {option}: unknown capability: "CAP_FOO"$'):
            of(add, drop)
