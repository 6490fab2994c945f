import copy
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logd.batch import ContainerInfo
from logd.gotemplate.functions import FUNCTIONS, MAX_BYTES
from logd.logtag import FIELDS, Tag, parse_tag

ID = "abcdef01234567890abcdef01234567890abcdef01234567890abcdef0123456"
IMAGE = "sha256:582c496ccf79d8aa6f8203a79d32aaf7ffd8b13362c60a701a2f9ac64886c93d"
CONTAINER = ContainerInfo(
    id=ID,
    name="test-container",
    image_id=IMAGE,
    image_name="docker.io/library/hello-world:alpine",
    entrypoint="/bin/sh",
    args=("-c", "hello"),
    created_ns=1700000000_120000000,
    env=("A=1", "SOME_ENV_VAR=logtester.1234", "NOVALUE"),
    labels={"app": "shop", "com.example/x": 'z "q" <b>', "empty": "", "long": "ß\u2028\x01é"},
    log_opts={"tag": "x", "env": "SOME_ENV_VAR"},
    log_path="/c/x-json.log",
)
EXTRA = {"SOME_ENV_VAR": "logtester.1234"}


def expand(text: str, container: ContainerInfo = CONTAINER) -> str:
    tag = parse_tag(text)
    assert tag is not None
    return tag.expand(container, EXTRA)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-custom-tag", "my-custom-tag"),
        ("{{.ID}}", "abcdef012345"),
        ("{{.FullID}}", ID),
        ("{{.ContainerID}}", ID),
        ("{{.Name}}/{{.ID}}", "test-container/abcdef012345"),
        ("{{.ContainerName}}", "/test-container"),
        ("{{.ImageID}}", "582c496ccf79"),
        ("{{.ImageFullID}} {{.ContainerImageID}}", f"{IMAGE} {IMAGE}"),
        ("{{.ImageName}}", "docker.io/library/hello-world:alpine"),
        ("{{.ContainerImageName}}", "docker.io/library/hello-world:alpine"),
        ("{{.DaemonName}}", "docker"),
        ("{{.Command}}", "/bin/sh -c hello"),
        ("{{.ContainerEntrypoint}} {{.ContainerArgs}}", "/bin/sh [-c hello]"),
        ("{{.Hostname}}", os.uname().nodename),
        ("{{.ContainerEnv}}", "[A=1 SOME_ENV_VAR=logtester.1234 NOVALUE]"),
        ("{{.ContainerCreated}}", "2023-11-14 22:13:20.12 +0000 UTC"),
        ("{{.Config}} {{.Config.env}}", "map[env:SOME_ENV_VAR tag:x] SOME_ENV_VAR"),
        ("{{.LogPath}}", "/c/x-json.log"),
        ("{{ (.ExtraAttributes nil).SOME_ENV_VAR }}", "logtester.1234"),
    ],
)
def test_the_fields_of_docker(text, expected):
    assert expand(text) == expected


# What Go 1.19's text/template with Docker's functions made of these, for this container.
GO = [
    ("{{.ContainerLabels.app}}|{{.ContainerLabels.nope}}", "shop|<no value>"),
    ('{{index .ContainerLabels "com.example/x"}}|{{index .ContainerLabels "nope"}}|', 'z "q" <b>||'),
    ("{{json .ContainerLabels}}",
     '{"app":"shop","com.example/x":"z \\"q\\" <b>","empty":"","long":"ß\\u2028\\u0001é"}'),
    ("{{json .ContainerArgs}}{{json 1}}{{json true}}{{json nil}}", '["-c","hello"]1truenull'),
    ("{{json .ContainerCreated}}", '"2023-11-14T22:13:20.12Z"'),
    ('{{split "a.b.c" "."}} {{index (split .ImageName ":") 1}}', "[a b c] alpine"),
    ('{{join .ContainerArgs "_"}}{{join (split "ab" "") "-"}}', "-c_helloa-b"),
    ('{{title "hello wörld o_x x-y"}}|{{upper "straße ü"}}|{{lower "ÀÉΣ"}}', "Hello Wörld O_x X-Y|STRAßE Ü|àéσ"),
    ('{{pad "x" 1 2}}|{{pad "" 3 3}}|', " x  ||"),
    ("{{truncate .Name 4}}|{{truncate .Name 99}}", "test|test-container"),
    ('{{.ImageFullID | printf "%.12s"}}|{{printf "%-5s|%5d|%05d|%v|%x|%t" "a" 3 -3 .ContainerArgs "hi" true}}',
     "sha256:582c4|a    |    3|-0003|[-c hello]|6869|true"),
    ('{{printf "%%%X %3.1v" 255 "abc"}}', "%FF   a"),
    ('{{print 1 2 "a" 3 nil true}}|{{print}}', "1 2a3 <nil> true|"),
    ('{{len .Name}} {{len .ContainerArgs}} {{len .ContainerLabels}} {{len "é"}} {{index .Name 0}}', "14 2 4 2 116"),
    ('{{if eq .ContainerLabels.app "x" "shop"}}a{{else}}b{{end}}', "a"),
    ("{{if .ContainerLabels.nope}}a{{else if .LogPath}}b{{else}}c{{end}}", "b"),
    ('{{if and .Name (not .ContainerLabels.empty) (ne .ID "x")}}{{or .ContainerLabels.nope "d"}}{{end}}', "d"),
    ("{{lt 1 2}}{{le 2 1}}{{gt `b` `a`}}{{ge 1 1}}", "truefalsetruetrue"),
    ("{{and 0 (index .ContainerArgs 9)}}{{or 1 (index .ContainerArgs 9)}}", "01"),
    ("a  {{- /* c */ -}}  b {{- \" c \" -}} d\n{{.ID -}}\t\n e", "ab c d\nabcdef012345e"),
    ("{{/* only this */}}", ""),
    ("a\n{{if true -}}\n x\n{{- end}} } }} {", "a\nx } }} {"),
    ('{{"\\x41\\u00e9\\t\\"\\\\\\101"}}{{`\\n`}}{{-3}}', 'Aé\t"\\A\\n-3'),
    ('{{"a" | print "b" | upper}}', "BA"),
    ("{{and nil 1}}{{eq .ContainerLabels.nope `x`}}{{eq nil nil}}", "<no value>falsetrue"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GO)
def test_what_go_makes_of_a_template(text, expected):
    assert expand(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a {{.Foo}}", r"template: log-tag:1:5: can't evaluate field Foo \(known: ID, .*\), at <\.Foo}}>"),
        ("\n{{ foo .ID}}", r'log-tag:2:4: function "foo" not defined'),
        ("{{.ID", "unclosed action"),
        ("{{", "unclosed action"),
        ("{{}}", "missing value for command"),
        ('{{"a}}', "unterminated quoted string"),
        ("{{/* a }}", "unclosed comment"),
        ("{{/* a */ }}", "comment ends before closing delimiter"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .ID}}", "has no {{end}}"),
        ("{{if .ID}}{{else}}{{else}}{{end}}", "expected end; found {{else}}"),
        ("{{if}}x{{end}}", "missing value for command"),
        ("{{(.ID}}", "unclosed left paren"),
        ("{{.ID)}}", "unexpected right paren"),
        ("{{.ID | }}", "missing value for command"),
        ('{{.ID | "x"}}', "non executable command in pipeline"),
        ("{{nil}}", "nil is not a command"),
        ('{{"a".b}}', "unexpected . after term"),
        ("{{.ID.x}}", "can't evaluate field x in type string"),
        ("{{.ID 1}}", "wrong number of args for ID: want 0 got 1"),
        ('{{"x" 1}}', "can't give argument to non-function"),
        ("{{.ExtraAttributes}}", "wrong number of args for ExtraAttributes: want 1 got 0"),
        ("{{.ExtraAttributes .ID}}", "argument can only be nil"),
        ("{{truncate .Name}}", "wrong number of args for truncate: want 2 got 1"),
        ('{{truncate .Name "x"}}', "wrong type for value; expected int; got string"),
        ("{{lower .ContainerArgs}}", "expected string; got list"),
        ("{{and}}", "wrong number of args for and: want at least 1 got 0"),
        ('{{printf "%q" .ID}}', "'%q' is not supported"),
        ('{{printf "%s"}}', "wants 1 values, got 0"),
        ('{{printf "%d" .ID}}', "%d can't show a value of type string"),
        ('{{printf "%999999999s" .ID}}', "is not supported"),
        ("{{1.5}}", "bad number '1.5'"),
        ("{{0x10}}", "bad number"),
        ("{{99999999999999999999}}", "bad number"),
        ('{{"\\q"}}', "invalid escape"),
        ('{{"\\ud800"}}', "invalid escape"),
        ("{{'a'}}", 'unexpected "\'"'),
        ("{{$x := .ID}}", "variables are not supported"),
        ("{{.}}", "the context as a whole is not supported"),
        ("{{range .ContainerArgs}}x{{end}}", "{{range}} is not supported"),
        ("{{with .ID}}x{{end}}", "{{with}} is not supported"),
        ('{{define "x"}}{{end}}', "{{define}} is not supported"),
        ('{{template "x"}}', "{{template}} is not supported"),
        ("{{call .ID}}", 'function "call" not defined'),
        ("{{.ID.__class__}}", "can't evaluate field __class__"),
        ("{{.__init__}}", "can't evaluate field __init__"),
        ("{{" + "(" * 999 + ".ID" + ")" * 999 + "}}", "more than 32 levels"),
        ("{{if true}}" * 999 + "{{end}}" * 999, "more than 32 levels"),
    ],
)
def test_a_template_that_can_not_be_used_is_refused_when_it_is_parsed_and_the_place_shown(text, words):
    with pytest.raises(ValueError, match=re.escape(words) if "{" in words else words) as caught:
        parse_tag(text)
    assert re.search(r"template: log-tag:\d+:\d+: .*, at <.+>", str(caught.value), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{index .ContainerArgs 5}}", "error calling index: index out of range: 5"),
        ("{{index .ContainerArgs -1}}", "index out of range: -1"),
        ("{{lower .ContainerLabels.nope}}", "expected string; got nothing"),
        ("{{truncate .Name -1}}", "slice bounds out of range"),
        ("{{pad .Name -1 0}}", "negative repeat count"),
        ("{{pad .Name 0 999999999999}}", "more than"),
        ("{{eq .ContainerArgs .ContainerArgs}}", "non-comparable type list"),
        ('{{eq 1 "a"}}', "incompatible types for comparison"),
        ("{{lt true false}}", "incompatible types for comparison"),
        ("{{len 1}}", "len of type int"),
        ('{{index 1 "x"}}', "can't index int by string"),
        ("{{.ContainerLabels.app.x}}", "can't evaluate field x in type string"),
        ('{{join (split (pad "x" 0 30000) "") (pad "y" 0 30000)}}', "more than"),
        ('{{printf .ContainerLabels.app "x"}}', "wants 0 values, got 1"),
    ],
)
def test_what_only_a_containers_values_can_tell_is_a_value_error(text, words):
    with pytest.raises(ValueError, match=words):
        expand(text)


def test_no_template_makes_more_than_a_bounded_text():
    assert len(expand("x" * MAX_BYTES)) == MAX_BYTES
    with pytest.raises(ValueError, match="more than 65536 bytes"):
        expand("x" * MAX_BYTES + "{{.ID}}")
    with pytest.raises(ValueError, match="more than 65536 bytes"):
        expand("{{if len " + "(upper (pad .Name 0 30000))" + "}}{{end}}" + '{{if len (pad "x" 0 30000)}}{{end}}' * 3)


def test_an_empty_tag_is_no_template():
    assert parse_tag("") is None


def test_templates_of_equal_text_are_equal_and_survive_a_copy():
    first, second = Tag("{{.ID}}"), Tag("{{.ID}}")
    assert first == second
    assert len({first, second}) == 1
    assert first != Tag("{{.Name}}")
    assert copy.copy(first).expand(CONTAINER) == "abcdef012345"
    assert repr(first) == "Tag(text='{{.ID}}')"


def test_a_tag_can_always_be_sent():
    container = ContainerInfo(id=ID, name="x", labels={"a": "\udcff"})
    assert expand("{{.ContainerLabels.a}}", container) == "?"


def test_zero_values_are_gos():
    container = ContainerInfo(id="", name="")
    assert expand("{{.ID}}{{.ImageID}}{{.ImageName}}{{.Command}}", container) == ""
    assert expand("{{.ContainerCreated}}", container) == "0001-01-01 00:00:00 +0000 UTC"


PIECES = st.sampled_from(
    ["{{", "}}", "{{- ", " -}}", "(", ")", "|", " ", "if ", "else", "end", '"', "`", "/*", "*/", "nil", "true", "1",
     "-1", "\\", "é", "\n", "%s", "%", *(f".{name}" for name in FIELDS), *FUNCTIONS, "and ", "or ", ".app", '"a"']
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(PIECES, max_size=20).map("".join) | st.text(max_size=40) | st.text(max_size=30).map("{{{{{}}}}}".format)
)
@example("{{if .ID}}{{else if .Name}}{{end}}")
def test_any_text_is_a_tag_or_a_value_error(text):
    try:
        tag = parse_tag(text)
        if tag is not None:
            tag.expand(CONTAINER, EXTRA).encode()
    except ValueError:
        pass


def test_all_fields_and_functions_are_documented():
    page = (Path(__file__).parent.parent / "docs/log-tags.md").read_text()
    missing = [name for name in (*(f".{field}" for field in FIELDS), *FUNCTIONS, "and", "or") if f"`{name}" not in page]
    assert not missing
