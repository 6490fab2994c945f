r"""The level of a log line, decided by where and how it is written: never by a word in the middle of a sentence.

    JSON with "level", "lvl", "severity", "levelname", "log.level", "@l": a word or a number    zap, pino, Serilog
    logfmt from the line's begin: `level=`, `lvl=`, `severity=`, `loglevel=`                    logrus, go-kit
    `E0102 03:04:05 …`                                                                          klog, glog
    `<3>…`                                                                                      syslog, systemd
    `ERROR`, `[error]`, `error:` behind nothing but times, numbers, brackets                    nginx, log4j, Python
    `1:M 02 Jan 2023 03:04:05.678 # …`                                                          Redis
    `Jan  2 03:04:05 host prog[1]: error: …`                                                    from a syslog file

A whole block of lines goes through one regular expression, which gives the word of each line that has one; words become
levels in a second step. Every repetition in it is bounded or can't overlap with what follows, so that what a container
prints can't make it slow (Python's `re`, measured: 100 to 500 MB/s; google-re2, whose matches are costly, 15).
"""

import re
from collections import Counter
from typing import Final

LEVELS: Final = ("critical", "error", "warning", "notice", "info", "debug", "trace")
NONE: Final = "none"
"""No level was recognised."""
UNEXAMINED: Final = "unexamined"
"""The line was counted and not looked at."""

_WORDS: Final = {
    "critical": "critical crit crt fatal ftl fata panic pani pnc dpanic emerg emergency alert severe f",
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

_WORD: Final = (
    rb"(?:[Ii]nfo(?:rmation)?|INFO|[Ee]rr(?:or)?|ERR(?:OR?)?|[Ww]arn(?:ing)?|WARN(?:ING)?|[Dd]ebug[1-5]?|DEBUG[1-5]?"
    rb"|[Nn]ot(?:ic)?e|NOTICE|[Tt]race|TRACE|[Ff]atal|FATAL|[Cc]rit(?:ical)?|CRIT(?:ICAL)?|[Pp]anic|PANIC|[Vv]erbose"
    rb"|VERBOSE|[Aa]lert|ALERT|[Ee]merg(?:ency)?|EMERG(?:ENCY)?|[Ss]evere|SEVERE|inf|INF|wrn|WRN|dbg|dbug|DBG|tr?ce?|TRC"
    rb"|fail|crt|ftl|FTL)"
)
_UPPER: Final = (
    rb"(?:INFO?|ERR(?:OR?)?|WARN(?:ING)?|DEBU(?:G[1-5]?)?|NOTICE|TRACE?|FATAL?|CRIT(?:ICAL)?|PANIC?|VERBOSE|ALERT"
    rb"|EMERG(?:ENCY)?|SEVERE|DPANIC|WRN|DBG|TRC|FTL|PNC|(?:LOG|FINE(?:R|ST)?|CONFIG)(?=:))"
)
_KEY: Final = rb'(?:level(?:name)?|lvl|severity(?:_text|Text)?|log(?:\.level|_?level|Level)|@l|s(?=":"[DIWEF]"))"'
_COLOUR: Final = rb"\x1b\[[0-9;]{0,16}m"
_NAMES: Final = (
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
    rb"|UTC|GMT|CES?T|ES?[DS]?T|CDT|MS[TK]|MDT|P[SD]T|IST|JST|BST|AM|PM|PHP|npm|[A-Z](?=, \[))\b"
)
_TOKEN: Final = (
    rb"(?:[\[(+#]?[0-9][\w:.,/+#-]*+[\])]?"  # times, numbers
    rb"|\[[^\]\n0-9][^\]\n]{0,79}+\]|\([^)\n0-9][^)\n]{0,79}+\)|<[^>\n]{1,40}+>"  # a thread, a logger, a process
    rb"|(?<=- )[A-Za-z_][\w.:]{0,63}+(?= +- )"  # the same as Python's programs write it
    rb"|[A-Za-z_][\w.-]{0,31}+@[\w.-]{0,63}+(?=[ \[])"  # PostgreSQL's user and database
    rb"|" + _NAMES + rb"|" + _COLOUR + rb")[ \t|:,-]*+"
)
_LEVEL: Final = (
    rb"(?:[\[(<] ?(?:[\w.-]{1,32}+:)?(?=" + _WORD + rb" *[\])>])"  # [error], [core:error], <info>
    rb"|(?=[A-Za-z])(?=" + _UPPER + rb"(?:[\s:\]|)/\[,\x1b!-]|\Z)|" + _WORD + rb":(?:\s|\Z)|[Ff]atal error: ))"
)
_LINE: Final = re.compile(
    rb"\n(?:"
    rb'[ \t]*+\{(?:[^"\n]*+"){1,200}?' + _KEY + rb'[ \t]*+:[ \t]*+"?(?=[A-Za-z0-9])'
    rb'|(?:[\w.@-]{1,32}+=(?:"(?:[^"\\\n]|\\.){0,400}"|[^\s"]{0,200}+)[ \t]++){0,8}?(?:level|lvl|severity|loglevel)="?'
    rb"(?=[A-Za-z])"
    rb"|(?=[IWEF][0-9]{4} [0-9]{2}:|<[0-9]{1,3}>)"
    rb"|[0-9]{1,7}+:[MSCX] [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:.]{8,15}+ (?=[.*#-] )"
    rb"|[0-9]{4}-[0-9]{2}-[0-9T:.+Z-]{6,30}+ ++(?=[DIWEF][1-5]? +[A-Z]{3})"  # MongoDB's before 4.4
    rb"|[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [\w.-]{1,64}+ [\w./-]{1,64}+(?:\[[0-9]{1,10}\])?: "
    + _LEVEL
    +
    # of indented lines only those that begin with a time: the others go on with what was said before
    rb"|(?:[ \t]{1,8}(?=[0-9\[]))?(?:"
    + _TOKEN
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
