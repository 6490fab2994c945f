"""What a process inside a container sees: facts read by busybox under a real runc."""

import json
import os

import pytest

from logd.errors import InvalidParameter
from logd.runtime import capabilities
from logd.spec import ContainerSpec, DeviceMapping, HostConfig, Ulimit

DEFAULT_CAPABILITIES = 0x00000000A80425FB  # what /proc/1/status shows in a container of dockerd's


def status_of(text):
    return dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)


def test_the_command_is_pid_1_with_dockers_capabilities_and_a_seccomp_filter(containers):
    status = status_of(containers.sh("cat /proc/self/status; printf 'MyPid:\\t%s\\n' $$"))
    assert status["MyPid"] == "1"
    assert int(status["CapBnd"], 16) == DEFAULT_CAPABILITIES
    assert int(status["CapEff"], 16) == DEFAULT_CAPABILITIES
    assert int(status["CapPrm"], 16) == DEFAULT_CAPABILITIES
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "0"


def test_another_user_has_no_effective_capability_and_keeps_the_bound(containers):
    text = containers.sh("id; echo HOME=$HOME; cat /proc/self/status", spec=ContainerSpec(user="alice"))
    assert "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)" in text
    assert "HOME=/home/alice\n" in text
    status = status_of(text)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert int(status["CapBnd"], 16) == DEFAULT_CAPABILITIES


def test_capabilities_are_added_and_dropped_by_name_with_or_without_cap(containers):
    host = HostConfig(cap_add=["NET_ADMIN"], cap_drop=["CAP_CHOWN", "mknod"])
    status = status_of(containers.sh("cat /proc/self/status", host=host))
    names = {name for number, name in enumerate(capabilities.ALL) if int(status["CapEff"], 16) >> number & 1}
    assert names == (set(capabilities.DEFAULT) | {"CAP_NET_ADMIN"}) - {"CAP_CHOWN", "CAP_MKNOD"}
    status = status_of(containers.sh("cat /proc/self/status", host=HostConfig(cap_drop=["ALL"])))
    assert int(status["CapBnd"], 16) == 0


def test_a_program_finds_the_files_by_which_it_tells_that_it_is_in_a_container(containers):
    assert containers.sh("stat -c '%A %s' /.dockerenv; readlink /etc/mtab") == "-rwxr-xr-x 0\n/proc/mounts\n"
    assert containers.sh("ls -A /.dockerenv; ! touch /x", host=HostConfig(readonly_rootfs=True)) == "/.dockerenv\n"


def test_files_of_the_image_stay_where_docker_would_put_its_own(containers):
    (containers.layer / "etc/mtab").write_text("the image's")
    (containers.layer / ".dockerenv").write_text("its own")
    try:
        assert containers.sh("cat /.dockerenv /etc/mtab") == "its ownthe image's"
    finally:
        (containers.layer / "etc/mtab").unlink()
        (containers.layer / ".dockerenv").unlink()


@pytest.mark.parametrize("has_etc", ["nothing", "file"])
def test_an_image_without_a_folder_for_etc_gets_one_or_none(containers, tmp_path, monkeypatch, has_etc):
    (tmp_path / "bin").mkdir()
    if has_etc == "file":
        (tmp_path / "etc").touch()
    monkeypatch.setattr(containers, "layer", tmp_path)
    request = containers.bundle("/bin/true")
    assert (request.rootfs / "etc/mtab").is_symlink() is (has_etc == "nothing")


def test_security_options_reach_the_process(containers):
    host = HostConfig(security_opt=["seccomp=unconfined", "no-new-privileges"])
    status = status_of(containers.sh("cat /proc/self/status", host=host))
    assert status["Seccomp"].strip() == "0"
    assert status["NoNewPrivs"].strip() == "1"


def test_a_seccomp_profile_as_the_cli_sends_it_is_applied(containers):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    host = HostConfig(security_opt=[f"seccomp={json.dumps(profile)}"])
    done = containers.run("/bin/mkdir", "/tmp/x", host=host)
    assert done.returncode == 1
    assert b"Permission denied" in done.stderr


def test_the_default_profile_filters_even_what_the_capabilities_would_allow(containers):
    admin = HostConfig(cap_add=["SYS_ADMIN"])
    free = HostConfig(cap_add=["SYS_ADMIN"], security_opt=["seccomp=unconfined"])
    assert "Operation not permitted" in containers.sh("swapoff /etc/passwd 2>&1; true", host=admin)
    assert "Invalid argument" in containers.sh("swapoff /etc/passwd 2>&1; true", host=free)


def test_a_user_namespace_needs_a_capability(containers):
    assert "Operation not permitted" in containers.sh("unshare -Ur id 2>&1; true")
    assert "uid=0" in containers.sh("unshare -Ur id 2>&1", host=HostConfig(cap_add=["SYS_ADMIN"]))


def test_paths_of_the_kernel_are_masked_or_read_only(containers):
    assert containers.sh("cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l") == "0\n0\n"
    assert "Read-only file system" in containers.sh("(echo 1 > /proc/sys/kernel/domainname) 2>&1; true")
    assert "Read-only file system" in containers.sh("mkdir /sys/fs/cgroup/x 2>&1; true")
    assert containers.sh("wc -c < /proc/keys", host=HostConfig(masked_paths=[])) != "0\n"


def test_the_mounts_are_dockers(containers):
    lines = [line.split() for line in containers.sh("cat /proc/mounts").splitlines()]
    mounts = {fields[1]: (fields[2], set(fields[3].split(","))) for fields in lines}
    assert mounts["/"][0] == "overlay"
    assert mounts["/proc"][1] >= {"nosuid", "nodev", "noexec"}
    assert mounts["/dev"][1] >= {"nosuid", "size=65536k", "mode=755"}
    assert mounts["/dev/pts"][1] >= {"gid=5", "mode=620", "ptmxmode=666"}
    assert mounts["/dev/shm"] == ("tmpfs", {"rw", "nosuid", "nodev", "noexec", "relatime", "size=65536k"})
    assert mounts["/dev/mqueue"][0] == "mqueue"
    assert mounts["/sys"][1] >= {"ro", "nosuid", "nodev", "noexec"}
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= set(mounts)


def test_a_user_without_rights_reopens_stdout_and_stderr(containers):
    script = "echo out > /dev/stdout; echo err > /dev/stderr; echo again >> /dev/fd/1"
    done = containers.run("/bin/sh", "-c", script, spec=ContainerSpec(user="1234:5678"))
    assert (done.stdout, done.stderr, done.returncode) == (b"out\nagain\n", b"err\n", 0)


def test_no_descriptor_beyond_the_three_is_open(containers):
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)  # subprocess closes it; the runtime must not add any of its own
    try:
        listing = containers.sh("exec ls -l /proc/self/fd")
    finally:
        os.close(leaked)
    numbers = [line.split()[-3] for line in listing.splitlines() if "->" in line]
    assert numbers in (["0", "1", "2"], ["0", "1", "2", "3"])  # 3 is the folder that ls reads


def test_the_host_name_and_the_network_files(containers):
    host = HostConfig(extra_hosts=["db:10.0.0.9", "six=[::5]"], dns=["9.9.9.9"], dns_search=["example.org"])
    spec = ContainerSpec(hostname="web", domainname="corp")
    text = containers.sh(
        "hostname; cat /proc/sys/kernel/domainname /etc/hostname /etc/hosts /etc/resolv.conf; echo $HOSTNAME",
        spec=spec,
        host=host,
    )
    assert text.startswith("web\ncorp\nweb\n127.0.0.1\tlocalhost\n")
    assert "10.0.0.9\tdb\n::5\tsix\n127.0.0.1\tweb.corp web\n" in text
    assert "nameserver 9.9.9.9\n" in text
    assert "search example.org\n" in text
    assert text.endswith("\nweb\n")


def test_the_network_is_a_loopback_that_is_up_or_the_hosts(containers):
    script = "readlink /proc/self/ns/net; ip -o addr; ping -c1 -W1 127.0.0.1 >/dev/null && echo reached"
    for mode in ("default", "bridge", "none"):
        text = containers.sh(script, host=HostConfig(network_mode=mode))
        assert [line.split()[1] for line in text.splitlines() if "inet" in line] == ["lo", "lo"]
        assert text.endswith("reached\n")
    text = containers.sh(script + "; cat /etc/hosts", host=HostConfig(network_mode="host"))
    assert text.startswith(os.readlink("/proc/self/ns/net"))
    assert "localhost" in text


def test_namespaces_are_shared_with_the_host_only_when_asked(containers):
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    script = "for k in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$k; done"
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert not set(own) & set(containers.sh(script).split())
    shared = HostConfig(network_mode="host", ipc_mode="host", pid_mode="host", uts_mode="host", cgroupns_mode="host")
    there = containers.sh(script, host=shared).split()
    assert [here == other for here, other in zip(own, there, strict=True)] == [True, True, False, True, True, True]


def test_the_root_may_be_read_only_with_writable_places(containers):
    host = HostConfig(readonly_rootfs=True, tmpfs={"/scratch": "size=1m,mode=1777"})
    script = (
        "touch /x 2>&1; touch /scratch/x /dev/shm/x && echo written; touch /etc/hosts 2>&1; grep /scratch /proc/mounts"
    )
    text = containers.sh(script, host=host)
    assert "touch: /x: Read-only file system" in text
    assert "written\n" in text
    assert "touch: /etc/hosts: Read-only file system" in text
    assert {"size=1024k", "nosuid", "nodev", "noexec"} <= set(text.split()[-3].split(","))


def test_a_working_directory_is_made_inside_the_root_even_through_links(containers, busybox_layer, tmp_path):
    assert containers.sh("pwd; stat -c '%U %a' .", spec=ContainerSpec(working_dir="/srv/a/b")) == "/srv/a/b\nroot 755\n"
    assert not os.path.lexists("/srv/a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (busybox_layer / "link").symlink_to(outside)
    try:
        with pytest.raises(InvalidParameter, match="is not a directory"):
            containers.run("/bin/pwd", spec=ContainerSpec(working_dir="/link/deep"))
    finally:
        (busybox_layer / "link").unlink()
    assert not list(outside.iterdir())
    with pytest.raises(InvalidParameter, match="Cannot mkdir: /etc/passwd is not a directory"):
        containers.run("/bin/pwd", spec=ContainerSpec(working_dir="/etc/passwd"))


def test_the_environment_is_dockers_under_what_was_asked(containers):
    text = containers.sh("env", spec=ContainerSpec(hostname="h", env=["A=1", "B==2", "HOSTNAME=mine"]))
    variables = dict(line.split("=", 1) for line in text.splitlines())
    assert variables["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (variables["A"], variables["B"], variables["HOSTNAME"], variables["HOME"]) == ("1", "=2", "mine", "/root")
    assert "TERM" not in variables
    assert "PATH=" not in containers.run("/bin/env", spec=ContainerSpec(env=["PATH"])).stdout.decode()


def test_an_unknown_user_is_refused_in_dockers_words(containers):
    with pytest.raises(InvalidParameter, match=r"^unable to find user bob: no matching entries in passwd file$"):
        containers.run("/bin/true", spec=ContainerSpec(user="bob"))


def test_groups_are_added_by_name_and_number(containers):
    text = containers.sh("id -G", spec=ContainerSpec(user="alice"), host=HostConfig(group_add=["wheel", "4321"]))
    assert set(text.split()) == {"1000", "50", "10", "4321"}


@pytest.mark.parametrize("init", ["/usr/bin/tini-static", "/usr/bin/catatonit"])
def test_an_init_is_pid_1_and_reaps(containers, init):
    text = containers.sh("cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$", init_path=init)
    assert text.startswith("/sbin/docker-init -- /bin/sh -c ")
    assert text.split()[-1] != "1"
    assert containers.run("/bin/sh", "-c", "exit 7", init_path=init).returncode == 7


def test_resource_limits_and_the_oom_score_are_set(containers):
    host = HostConfig(ulimits=[Ulimit(name="nofile", soft=64, hard=128)], oom_score_adj=300)
    assert containers.sh("ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj", host=host) == "64\n128\n300\n"
    assert containers.sh("cat /proc/self/oom_score_adj") == "0\n"


def test_sysctls_are_set_in_the_namespaces_of_the_container(containers):
    host = HostConfig(sysctls={"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"}, shm_size=1 << 20)
    files = "net/ipv4/ip_forward kernel/msgmax net/ipv4/ip_unprivileged_port_start"
    script = f"cd /proc/sys && cat {files}; df -k /dev/shm | tail -1"
    text = containers.sh(script, host=host)
    assert text.split()[:3] == ["1", "9000", "0"]
    assert text.split()[4] == "1024"


def test_devices_are_few_and_access_to_others_is_denied(containers):
    names = set(containers.sh("ls /dev").split()) - {"core"}  # a link, on hosts that have /proc/kcore
    assert names == {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"} | {
        "tty", "urandom", "zero",
    }  # fmt: skip
    script = "mknod /tmp/fuse c 10 229 && cat /tmp/fuse 2>&1; true"
    assert "Operation not permitted" in containers.sh(script)


def test_a_device_of_the_host_can_be_given(containers):
    device = DeviceMapping(path_on_host="/dev/kmsg", path_in_container="/dev/messages", cgroup_permissions="r")
    text = containers.sh(
        "ls -l /dev/messages; (echo > /dev/messages) 2>&1; dd if=/dev/messages bs=4k count=1 2>/dev/null | wc -l",
        host=HostConfig(devices=[device]),
    )
    assert "1,  11" in text
    assert "Operation not permitted" in text


def test_a_privileged_container_has_everything_that_the_daemon_has(containers):
    host = HostConfig(privileged=True)
    text = containers.sh(
        "cat /proc/self/status; mkdir /sys/fs/cgroup/x; rmdir /sys/fs/cgroup/x; mount -t tmpfs x /tmp && echo mounted",
        host=host,
    )
    status = status_of(text)
    with open("/proc/self/status", encoding="ascii") as file:
        own = int(status_of(file.read())["CapBnd"], 16)
    assert int(status["CapEff"], 16) == own
    assert status["Seccomp"].strip() == "0"
    assert text.endswith("mounted\n")


def test_volumes_and_binds_are_mounted(containers, tmp_path):
    shared, anonymous = tmp_path / "shared", tmp_path / "anonymous"
    shared.mkdir()
    anonymous.mkdir()
    spec = ContainerSpec(volumes={"/data": {}})
    host = HostConfig(binds=[f"{shared}:/w", f"{shared}:/r/deep:ro", f"{tmp_path}/made:/made"])
    script = "echo x > /w/file; cat /r/deep/file; touch /r/deep/no 2>&1; touch /data/kept; ls /made"
    assert containers.sh(script, spec=spec, host=host, volumes={"/data": anonymous}) == (
        "x\ntouch: /r/deep/no: Read-only file system\n"
    )
    assert (anonymous / "kept").exists()
    assert (tmp_path / "made").is_dir()
