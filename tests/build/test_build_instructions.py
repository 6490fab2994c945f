"""`docker build` by the builder of version 1: what each instruction does to the image."""

import re

STAT = "stat -c '%n %a %u:%g %Y'"


def test_settings_become_the_images(builds):
    builds.build(
        "FROM busybox\n"
        "ENV A=1 B=\"two words\" C='$A' D=$A\\ x\n"
        "ENV E $A  and ${Z:-nothing}\n"
        'LABEL one=1 "two words"="${A}2"\n'
        "EXPOSE 80 8000-8001/udp\n"
        'VOLUME ["/data", "/with space"]\n'
        "USER nobody\n"
        "STOPSIGNAL SIGUSR1\n"
        "HEALTHCHECK --interval=5s --retries=4 CMD wget -q $A || exit 1\n"
        "ONBUILD RUN echo later\n"
        'SHELL ["/bin/sh", "-e", "-c"]\n'
        "ENTRYPOINT exec top $A\n"
        'CMD ["-b", "x"]\n'
    )
    config = builds.config()
    assert config["Env"][1:] == ["A=1", "B=two words", "C=$A", "D= x", "E=1  and nothing"]
    assert config["Labels"] == {"one": "1", "two words": "12"}
    assert sorted(config["ExposedPorts"]) == ["80/tcp", "8000/udp", "8001/udp"]
    assert sorted(config["Volumes"]) == ["/data", "/with space"]
    assert (config["User"], config["StopSignal"]) == ("nobody", "SIGUSR1")
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "wget -q $A || exit 1"],
        "Interval": 5_000_000_000,
        "Retries": 4,
    }
    assert (config["OnBuild"], config["Shell"]) == (["RUN echo later"], ["/bin/sh", "-e", "-c"])
    assert config["Entrypoint"] == ["/bin/sh", "-e", "-c", "exec top $A"]
    assert config["Cmd"] == ["-b", "x"]
    assert builds.history()[:3] == [
        '/bin/sh -e -c #(nop)  CMD ["-b" "x"]',
        '/bin/sh -e -c #(nop)  ENTRYPOINT ["/bin/sh" "-e" "-c" "exec top $A"]',
        "/bin/sh -e -c #(nop)  SHELL [/bin/sh -e -c]",
    ]
    assert "/bin/sh -c #(nop)  ENV A=1 B=two words C=$A D= x" in builds.history()


def test_an_entrypoint_takes_the_command_of_the_image_away_and_keeps_that_of_the_file(builds):
    builds.build('FROM busybox\nENTRYPOINT ["e"]\n')
    assert builds.config()["Cmd"] is None
    builds.build('FROM busybox\nCMD ["c"]\nENTRYPOINT ["e"]\n')
    assert builds.config()["Cmd"] == ["c"]


def test_commands_run_in_the_image_so_far_and_what_they_say_comes_out(builds, steps):
    done = builds.build(
        "FROM busybox\n"
        "ENV A='b c'\n"
        "WORKDIR /made/for\nWORKDIR ../it\n"
        'RUN echo "$A" $PWD > file; cat file; echo err >&2\n'
        "USER nobody:users\n"
        'RUN ["sh", "-c", "id -u; id -g; echo $0", "exec form"]\n'
    )
    out = steps(done)
    assert "b c /made/it" in done.stdout
    assert "\x1b[91merr\n\x1b[0m" in done.stdout
    assert out[-3:] == ["65534", "100", "exec form"]
    assert done.stdout.count(" ---> Running in ") == done.stdout.count(" ---> Removed intermediate container ") == 2
    assert builds.containers() == []


def test_a_command_that_fails_ends_the_build_with_its_status_and_its_container_stays(builds):
    done = builds.build("FROM busybox\nRUN echo before; exit 7\nRUN echo after\n", check=False)
    assert done.returncode == 7
    assert done.stdout.endswith("\nbefore\n")
    assert "The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7" in done.stderr
    [container] = builds.containers()
    builds.daemon.docker("rm", container)
    assert builds.build("FROM busybox\nRUN exit 7\n", "--force-rm", check=False).returncode == 7
    assert builds.containers() == []
    assert 'exec: "/nope"' in builds.fails('FROM busybox\nRUN ["/nope"]\n')
    assert builds.containers() == builds.left() == []


def test_arguments_are_known_from_their_declaration_on_and_proxies_always(builds, steps):
    done = builds.build(
        "ARG TAG=nope\nARG GLOBAL=g\n"
        "FROM busybox:${TAG}\n"
        "RUN echo [$A] [$TAG] [$GLOBAL] [$http_proxy]\n"
        "ARG TAG\nARG A=1 B=$A-x\nARG C\n"
        "RUN echo [$A] [$B] [$C] [$TAG]\n"
        "ENV A=env\n"
        "RUN echo [$A]\n",
        *("--build-arg", "TAG=latest", "--build-arg", "A=given", "--build-arg", "http_proxy=p", "--build-arg", "NO=1"),
    )
    said = [line for line in steps(done) if line.startswith("[")]
    assert said == [
        "[] [] [] [p]",
        "[given] [given-x] [] [latest]",
        "[env]",
        "[Warning] One or more build-args [NO] were not consumed",
    ]
    history = builds.history()
    assert history[0] == "|2 B=given-x TAG=latest /bin/sh -c echo [$A]"
    assert history[-2] == "|0 /bin/sh -c echo [$A] [$TAG] [$GLOBAL] [$http_proxy]"


def test_stages_give_files_to_others_with_their_owners(builds, steps):
    done = builds.build(
        "FROM busybox AS one\n"
        "RUN mkdir -p /o/d && echo 1 > /o/d/f && chmod 640 /o/d/f && chown 33:34 /o/d/f && ln -s f /o/d/l\n"
        "FROM scratch AS Two\n"
        "COPY --from=one /o /p\n"
        "COPY --from=0 --chown=5:6 /o/d/l /q\n"
        "FROM busybox\n"
        "COPY --from=two / /r/\n"
        "COPY --from=busybox:latest /etc/group /g\n"
        f"RUN cd /r && {STAT.replace(' %Y', '')} p/d/f q && readlink p/d/l && grep -c root /g\n"
    )
    assert steps(done)[-4:] == ["p/d/f 640 33:34", "q 640 5:6", "f", "1"]


def test_a_target_ends_the_build_and_later_stages_are_not_built(builds):
    text = "FROM busybox AS one\nENV A=1\nFROM one AS two\nENV A=2\nFROM nowhere/never\n"
    builds.build(text, "--target", "two")
    assert "A=2" in builds.config()["Env"]
    assert builds.fails(text, "--target", "x").startswith("Error response from daemon: failed to reach build target x")


def test_triggers_run_where_the_image_is_built_upon(builds, steps):
    done = builds.build(
        "FROM busybox AS base\nONBUILD COPY a /ob\nONBUILD ENV OB=1\nFROM base\nRUN cat /ob; echo $OB\n",
        files={"a": "content\n"},
    )
    assert "# Executing 2 build triggers" in done.stdout
    assert steps(done)[-2:] == ["content", "1"]
    assert builds.config()["OnBuild"] is None


def test_labels_and_several_names_come_from_the_command_line(builds):
    builds.build("FROM busybox\nLABEL a=1 b=2\n", "--label", "b=3", "--label", "c=d e", "-t", "other/name:tag")
    assert builds.config("other/name:tag")["Labels"] == {"a": "1", "b": "3", "c": "d e"}


def test_the_maintainer_is_the_author(builds):
    builds.build("FROM busybox\nMAINTAINER Joe <joe@example.org>\nENV A=1\n")
    assert builds.daemon.docker("image", "inspect", "-f", "{{.Author}}", "built").stdout == "Joe <joe@example.org>\n"


def test_limits_hosts_and_networks_of_the_request_hold_for_commands(builds, steps):
    done = builds.build(
        "FROM busybox\nRUN ulimit -n; grep -c given.example /etc/hosts; ls /sys/class/net\n",
        *("--ulimit", "nofile=100:100", "--add-host", "given.example:1.2.3.4", "--network", "none"),
    )
    assert steps(done)[-3:] == ["100", "1", "lo"]


def test_what_a_command_writes_into_a_volume_is_lost_and_what_is_copied_there_stays(builds, steps):
    done = builds.build(
        "FROM busybox\nVOLUME /v\nCOPY a /v/\nRUN echo x > /v/lost\nRUN ls /v\n",
        files={"a": "a"},
    )
    assert steps(done)[-1] == "a"
    assert builds.daemon.docker("volume", "ls", "-q").stdout == ""


def test_only_the_id_is_said_quietly(builds):
    done = builds.build("FROM busybox\nRUN echo loud\n", "-q")
    assert re.fullmatch("sha256:[0-9a-f]{64}\n", done.stdout)


def test_a_user_who_is_not_there_and_signals_that_do_not_exist_are_named(builds):
    assert "no matching entries in passwd file" in builds.fails("FROM busybox\nUSER nosuch\nRUN id\n")
    assert builds.fails("FROM busybox\nSTOPSIGNAL SIGNOPE\n") == "invalid signal: SIGNOPE"
    assert builds.fails("FROM busybox\nWORKDIR /etc/passwd\n") == "Cannot mkdir: /etc/passwd is not a directory"
    assert builds.containers() == builds.left() == []


def test_an_instruction_that_needs_buildkit_is_refused_before_anything_is_built(builds):
    said = builds.fails("FROM busybox\nRUN --mount=type=cache,target=/x true\n")
    assert said == (
        "Error response from daemon: dockerfile parse error on line 2: "
        "the --mount option of RUN requires BuildKit, which this daemon does not have"
    )
