"""The level of a line: as real programs write it, and not where a sentence happens to have such a word."""

import time

import pytest

from logd.metrics.levels import LEVELS, NONE, count_levels, level_of

LINES = [
    # JSON
    ("info", '{"level":"info","ts":1700000000.1,"caller":"main.go:12","msg":"started"}'),  # zap
    ("error", '{"level":"error","msg":"no level here","time":"2023-01-02T03:04:05Z"}'),  # logrus
    ("warning", '{"level":40,"time":1700000000000,"pid":1,"hostname":"h","msg":"slow"}'),  # pino
    ("critical", '{"name":"app","hostname":"h","pid":1,"level":60,"msg":"bye","time":"2023","v":0}'),  # bunyan
    ("warning", '{"message":"the \\"level\\":\\"error\\" of it","level":"warn"}'),  # winston
    ("info", '{"asctime": "2023-01-02 03:04:05,678", "levelname": "INFO", "message": "x"}'),  # python-json-logger
    ("error", '{"severity":"ERROR","message":"boom"}'),  # Google's
    ("error", '{"@t":"2023-01-02T03:04:05.1Z","@mt":"Boom","@l":"Error"}'),  # Serilog
    ("debug", '{"@timestamp":"2023-01-02T03:04:05.1Z", "log.level":"DEBUG", "message":"x"}'),  # ECS
    ("info", '{"t":{"$date":"2023-01-02T03:04:05.678+00:00"},"s":"I",  "c":"NETWORK","id":1}'),  # MongoDB
    ("error", '{"version":"1.1","host":"h","short_message":"x","level":3}'),  # GELF
    (NONE, '{"message":"it says level: error","status":500}'),
    (NONE, '{"level":"custom","message":"x"}'),
    # logfmt
    ("info", 'time="2023-01-02T03:04:05.678Z" level=info msg="Processing signal \'terminated\'"'),
    ("warning", "level=warn ts=2023-01-02T03:04:05.678Z caller=main.go:12 msg=odd"),
    ("error", 't=2023-01-02T03:04:05Z lvl=eror msg="failed" logger=http'),
    ("debug", 'ts=1 caller=a.go:1 level="debug" msg=x'),
    (NONE, "please set level=error in the file"),
    (NONE, "msg=hello status=200"),
    # klog, syslog, journald-like
    ("error", "E0102 03:04:05.678901       1 reflector.go:138] Failed to watch"),
    ("info", "I0102 03:04:05.678901       1 main.go:12] Starting"),
    ("critical", "F0102 03:04:05.678901       1 main.go:12] cannot go on"),
    ("error", "<3>something failed"),
    ("info", "<30>Jan  2 03:04:05 host prog[1]: text"),
    ("error", "Jan  2 03:04:05 web sshd[123]: error: maximum authentication attempts exceeded"),
    ("warning", "Jan 12 03:04:05 web app/main[1]: WARNING something"),
    (NONE, "Jan  2 03:04:05 web sshd[123]: Accepted publickey for error from 10.0.0.1"),
    # nginx, Apache
    ("error", '2023/01/02 03:04:05 [error] 31#31: *1 open() "/x" failed (2: No such file or directory)'),
    ("critical", "2023/01/02 03:04:05 [emerg] 1#1: host not found in upstream"),
    (NONE, '127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /error HTTP/1.0" 404 2326 "-" "ERROR"'),
    ("error", "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 43] [client 72.15.99.187] File"),
    # databases
    ("info", "2023-01-02 03:04:05.678 UTC [1] LOG:  database system is ready to accept connections"),
    ("error", '2023-01-02 03:04:05.678 UTC [77] ERROR:  relation "x" does not exist at character 15'),
    ("critical", '2023-01-02 03:04:05.678 CET [77] app@db FATAL:  password authentication failed for user "x"'),
    (NONE, "2023-01-02 03:04:05.678 UTC [77] STATEMENT:  SELECT error FROM x"),
    ("notice", "1:M 02 Jan 2023 03:04:05.678 * Ready to accept connections"),
    ("warning", "1:C 02 Jan 2023 03:04:05.678 # Warning: no config file specified"),
    ("warning", "2023-01-02T03:04:05.678901Z 0 [Warning] [MY-010068] [Server] CA certificate is self signed."),
    ("notice", "2023-01-02 03:04:05 1 [Note] mysqld: ready for connections."),
    ("warning", "2023-01-02T03:04:05.678+0000 W STORAGE  [initandlisten] slow"),
    ("info", "2023-01-02 03:04:05.678 [info] <0.222.0> Server startup complete"),  # RabbitMQ
    ("info", "[2023-01-02T03:04:05,678][INFO ][o.e.n.Node] [node] started"),  # Elasticsearch
    ("info", "2023-01-02 03:04:05,678 [myid:1] - INFO  [main:QuorumPeer@12] - Starting"),  # ZooKeeper
    ("warning", "    2019/01/01 00:00:00 [WARN] raft: no known peers"),  # Consul
    # Python
    ("warning", "WARNING:root:watch out"),
    ("info", "2023-01-02 03:04:05,678 - my.logger - INFO - message"),
    ("error", "[2023-01-02 03:04:05 +0000] [7] [ERROR] Exception in worker process"),  # gunicorn
    ("info", "INFO:     Started server process [1]"),  # uvicorn
    ("info", "[2023-01-02 03:04:05,678: INFO/MainProcess] celery@h ready."),
    ("info", "2023-01-02 03:04:05.678 | INFO     | mod:main:12 - started"),  # loguru
    (NONE, "Traceback (most recent call last):"),
    (NONE, '  File "error.py", line 1, in <module>'),
    # Java
    ("info", "2023-01-02 03:04:05.678  INFO 1 --- [           main] c.e.App : Started App in 3.2 seconds"),  # Spring
    ("debug", "03:04:05.678 [main] DEBUG com.example.Foo - entering"),  # logback
    ("error", "[main] ERROR org.example.Foo - failed"),  # slf4j-simple
    ("info", "[2023-01-02 03:04:05,678] INFO [GroupCoordinator 1]: Stabilized group (kafka)"),
    ("critical", "SEVERE: Servlet.service() threw exception"),  # java.util.logging
    (NONE, "Jan 02, 2023 3:04:05 AM org.apache.catalina.core.StandardService start"),
    (NONE, "\tat com.example.Error.main(Error.java:12)"),
    # Go, Rust, Node, Ruby, PHP, .NET
    ("info", "2023-01-02T03:04:05.678Z\tINFO\tmain.go:12\tstarted"),  # zap's console
    ("error", "ERRO[0001] cannot connect"),  # logrus on a terminal
    ("info", "\x1b[36mINFO\x1b[0m[0000] started"),
    ("warning", "\x1b[90m3:04PM\x1b[0m \x1b[31mWRN\x1b[0m odd"),  # zerolog
    ("info", "\x1b[2m2023-01-02T03:04:05.678Z\x1b[0m \x1b[32m INFO\x1b[0m app: started"),  # tracing
    ("info", "[2023-01-02T03:04:05Z INFO  app] started"),  # env_logger
    ("critical", "panic: runtime error: index out of range [3] with length 3"),
    ("critical", "fatal error: all goroutines are asleep - deadlock!"),
    ("info", "[03:04:05.678] INFO (1): started"),  # pino-pretty
    ("error", "npm ERR! code ELIFECYCLE"),
    ("info", "I, [2023-01-02T03:04:05.678901 #1]  INFO -- : started"),
    ("warning", "PHP Warning:  Undefined variable $x in /x.php on line 1"),
    ("critical", "PHP Fatal error:  Uncaught Error: x"),
    ("notice", "[02-Jan-2023 03:04:05] NOTICE: fpm is running, pid 1"),
    ("info", "info: Microsoft.Hosting.Lifetime[0]"),
    ("error", "fail: Microsoft.AspNetCore.Server.Kestrel[13]"),
    ("notice", "[NOTICE]   (1) : New worker (8) forked"),  # HAProxy
    ("error", "error: could not open the file"),
    ("trace", "TRACE entering"),
    # no level
    (NONE, "no errors found"),
    (NONE, "The ERROR was in the middle of a sentence"),
    (NONE, "2023-01-02 03:04:05 no error: all is well"),
    (NONE, "2023-01-02 03:04:05 found 3 errors, 2 warnings"),
    (NONE, "Error rate is 3 %"),
    (NONE, "ERROR_COUNT=0"),
    (NONE, "DEBUG=1"),
    (NONE, "INFORMATION is power"),
    (NONE, "errors: 0"),
    (NONE, "[main] warnings were found"),
    (NONE, "Information for users: none"),
    (NONE, ""),
    (NONE, "{"),
    (NONE, "12"),
]


@pytest.mark.parametrize(("level", "line"), LINES, ids=[line[:60] for _, line in LINES])
def test_a_line_has_the_level_that_its_program_gave_it(level: str, line: str) -> None:
    assert count_levels(line.encode() + b"\n") == {level: 1}


def test_a_block_of_all_these_lines_has_each_once() -> None:
    block = "".join(f"{line}\n" for _, line in LINES).encode()
    found = count_levels(block)
    assert found == {level: sum(one == level for one, _ in LINES) for level in (*LEVELS, NONE)}
    assert found.total() == block.count(b"\n")
    assert count_levels(block.replace(b"\n", b"\r\n")) == found


def test_words_of_programs_become_the_levels_that_are_written_down() -> None:
    words = {
        word: level_of(word) for word in (b"WARN", b"Warning", b"eror", b"FATAL", b"<0", b"<14", b"30", b"6", b"?")
    }
    assert list(words.values()) == ["warning", "warning", "error", "critical", "critical", "info", "info", "info", NONE]


HOSTILE = [b"{" + b'"' * 4000, b"1 " * 2000, b"[a] " * 1000, b"a=b " * 1000, b'a="' + b'\\"' * 2000, b"[1-" * 1000,
           b"9" * 4000, b"12 (a) [b] <c> " * 300, b"\x1b[0m" * 1000, b"- a - " * 700, b"a@b " * 1000, b" " * 4000,
           b"Jan " * 1000, b"[" * 4000, b'{"a"' * 1000, b"info" * 1000, b"\xff" * 4000]  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE, ids=[repr(line[:12]) for line in HOSTILE])
def test_no_line_takes_long_however_it_is_made(line: bytes) -> None:
    began = time.process_time()
    count_levels((line + b"\n") * 20)
    once = time.process_time() - began
    assert once < 20 * 0.005
    began = time.process_time()
    count_levels((line * 10 + b"\n") * 20)
    assert time.process_time() - began < max(20 * once, 20 * 0.005)  # not more than in proportion
