r"""The level of a log line, decided by where and how it is written: never by a word in the middle of a sentence.

| written | as in |
|---|---|
| JSON: "level", "lvl", "severity", "levelname", "log.level", "@l" …: a word or a number | zap, logrus, pino, bunyan, Serilog |
| logfmt from the line's begin: `level=`, `lvl=`, `severity=`, `loglevel=` | logrus, go-kit, Grafana |
| `E0102 03:04:05 …` | klog, glog |
| `<3>…` | syslog, systemd |
| after times, numbers, brackets and thread names only: `[error]`, `ERROR`, `error:`, `<info>` | nginx, PostgreSQL, log4j, Python |
| `1:M 02 Jan 2023 03:04:05.678 # …` | Redis |
| `Jan  2 03:04:05 host prog[1]: error: …` | programs whose lines come from a syslog file |

A whole block of lines goes through one regular expression, which gives the word of each line that has one; words become
levels in a second step. Every repetition in it is bounded or can't overlap with what follows, so that what a container
prints can't make it slow (Python's `re`, measured: 100 to 500 MB/s; google-re2, whose matches are costly, 15).
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

LEVELS: Final = ("critical", "error", "warning", "notice", "info", "debug", "trace")
NONE: Final = "none"
"""No level was recognised."""
UNEXAMINED: Final = "unexamined"
"""The line was counted and not looked at."""

_WORDS: Final = {
    "critical": (
        "critical crit crt fatal ftl fata panic pani pnc dpanic emerg emergency alert severe f a"  # a: PostgreSQL-like
    ),
    "error": "error err erro eror fail failure e",
    "warning": "warning warn wrn w",
    "notice": "notice note",
    "info": "info information informational inf log config i",
    "debug": "debug dbg debu dbug fine debug1 debug2 debug3 debug4 debug5 d",
    "trace": "trace trc trac trce verbose finer finest v",
}
_NUMBERS: Final = {10: "trace", 20: "debug", 30: "info", 40: "warning", 50: "error", 60: "critical"}
"""pino's and bunyan's. One digit is a severity of syslog, as in GELF."""
_SEVERITIES: Final = ("critical", "critical", "critical", "error", "warning", "notice", "info", "debug")
"""RFC 5424, table 2: emergency, alert and critical are one here."""
_SYMBOLS: Final = {b"#": "warning", b"*": "notice", b"-": "info", b".": "debug"}
"""Redis' own."""

_ANY_CASE: Final = (
    rb"(?:trace|trc|trce|verbose|debug[1-5]?|dbg|dbug|info|inf|information|notice|note|warn|warning|wrn|error|err|fail"
    rb"|critical|crit|fatal|panic|alert|emerg|emergency|severe)"
)
_UPPER: Final = (
    rb"(?:TRACE|TRAC|TRC|VERBOSE|DEBUG[1-5]?|DEBU|DBG|INFO|INF|NOTICE|WARN(?:ING)?|WRN|ERROR?|ERR|CRIT(?:ICAL)?|FATAL?"
    rb"|FTL|PANIC?|PNC|DPANIC|SEVERE|ALERT|EMERG(?:ENCY)?|(?:LOG|FINE|FINER|FINEST|CONFIG)(?=:))"
)
_KEYS: Final = (
    rb'(?:level|lvl|severity|levelname|log\.level|loglevel|log_level|logLevel|severity_text|severityText|@l|s(?=":"[DIWEF]))'
    rb'"'
)
_COLOUR: Final = rb"\x1b\[[0-9;]{0,16}m"
_BETWEEN: Final = rb"(?:[ \t|:,-]|" + _COLOUR + rb")*(?![ \t|:,-])"
_TOKEN: Final = (
    rb"(?:[\[(]?[0-9][\w:.,/+#-]*[\])]?(?![\w:.,/+#\])-])"  # times, numbers
    rb"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"
    rb"|(?:UTC|GMT|CES?T|E[SD]T|C[SD]T|M[SD]T|P[SD]T|IST|JST|BST|MSK|AM|PM)\b"
    rb"|\[[^\]\n0-9][^\]\n]{0,79}\]|\([^)\n0-9][^)\n]{0,79}\)|<[^>\n]{1,40}>"  # a thread, a logger, a process
    rb"|(?<=- )[A-Za-z_][\w.:]{0,63}(?= +- )|[A-Za-z_][\w.-]{0,31}@[\w.-]{0,63}(?=[ \[])"
    rb"|[A-Z](?=, \[)|PHP\b|npm\b)"
)
_LEVEL: Final = (
    rb"(?:[\[(<] ?(?:[\w.-]{1,32}:)?(?=(?i:" + _ANY_CASE + rb") *[\])>])"  # [error], [core:error], <info>
    rb"|(?=" + _UPPER + rb"(?:[\s:\]|)/\[,\x1b!]|-|\Z))"
    rb"|(?=(?i:" + _ANY_CASE + rb"):(?:\s|\Z))|(?=[Ff]atal error: ))"
)
_LINE: Final = re.compile(
    rb"\n(?:"
    rb'[ \t]*\{(?:"(?:level|severity)":(?=")|(?:[^"\n]*"(?!' + _KEYS + rb')){0,200}[^"\n]*"' + _KEYS + rb"[ \t]*:)"
    rb'[ \t]*"?(?=[A-Za-z0-9])'
    rb'|(?:[\w.@-]{1,32}=(?:"(?:[^"\\\n]|\\.){0,400}"|[^\s"]{0,200})[ \t]+){0,8}(?:level|lvl|severity|loglevel)="?(?=[A-Za-z])'
    rb"|(?=[IWEF][0-9]{4} [0-9]{2}:)"
    rb"|(?=<[0-9]{1,3}>)"
    rb"|[0-9]{1,7}:[MSCX] [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:.]{8,15} (?=[.*#-] )"
    rb"|[0-9]{4}-[0-9]{2}-[0-9T:.+Z-]{6,30} +(?=[DIWEF][1-5]? +[A-Z]{3})"  # MongoDB's before 4.4
    rb"|[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [\w.-]{1,64} [\w./-]{1,64}(?:\[[0-9]{1,10}\])?: "
    + _LEVEL
    + rb"|(?:"
    # of indented lines only those that begin with a time: the others go on with what was said before
    + _COLOUR
    + rb"|[ \t]{1,8}(?=[0-9\[]))?(?:"
    + _TOKEN
    + _BETWEEN
    + rb"){0,10}?"
    + _LEVEL
    + rb")"
    rb"([A-Za-z]+[1-5]?|<[0-9]{1,3}|[0-9]{1,2}|[.*#-])"
)


def _table() -> dict[bytes, str]:
    known = {word.encode(): level for level, words in _WORDS.items() for word in words.split()}
    known |= {b"%d" % number: level for number, level in _NUMBERS.items()}
    known |= {b"%d" % number: level for number, level in enumerate(_SEVERITIES)}
    return known | _SYMBOLS


_KNOWN: Final = _table()


def level_of(word: bytes) -> str:
    """Return the level that a word stands for, `none` if it stands for none."""
    if word[:1] == b"<":
        return _SEVERITIES[int(word[1:]) % 8]
    return _KNOWN.get(word.lower(), NONE)


def count_levels(block: bytes) -> Counter[str]:
    """Return how many lines of each level there are in a block of whole lines, `none` among them."""
    words = Counter(_LINE.findall(b"\n" + block[:-1]))
    levels = Counter[str]()
    for word, count in words.items():
        levels[level_of(word)] += count
    levels[NONE] += block.count(b"\n") - words.total()
    return +levels


def normalised(words: Iterable[str]) -> dict[str, str]:
    """Return the levels that words stand for, for whoever shows the table."""
    return {word: level_of(word.encode()) for word in words}
