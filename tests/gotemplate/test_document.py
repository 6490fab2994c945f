"""Templates over JSON documents; what is expected is what Go's text/template gives."""

from typing import Any

import pytest

from logd.gotemplate.document import Document

DOCUMENT: dict[str, Any] = {
    "Name": "/web",
    "State": {"Running": True, "Pid": 3, "Health": None},
    "Mounts": [{"Source": "/a", "RW": True}, {"Source": "/b", "RW": False}],
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "443/tcp": []},
    "Empty": [],
    "Null": None,
    "Load": 1.5,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}} {{.State.Pid}} {{.State.Running}} {{.Load}}", "/web 3 true 1.5"),
        ("{{json .State}}", '{"Running":true,"Pid":3,"Health":null}'),
        ("{{.Mounts}}", "[map[RW:true Source:/a] map[RW:false Source:/b]]"),
        ("{{range .Mounts}}{{.Source}},{{end}}", "/a,/b,"),
        ("{{range $i, $one := .Mounts}}{{$i}}{{$one.Source}}{{$.Name}} {{end}}", "0/a/web 1/b/web "),
        ("{{range $port, $to := .Ports}}{{$port}}:{{len $to}} {{end}}", "443/tcp:0 80/tcp:1 "),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{range .Empty}}x{{else}}none{{end}}{{range .Null}}x{{else}}none{{end}}", "nonenone"),
        ("{{with .State.Health}}{{.Status}}{{else}}no check{{end}}", "no check"),
        ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "3/web"),
        ("{{if .Null}}a{{else if eq .State.Pid 3}}b{{else}}c{{end}}", "b"),
        ("{{if and .State.Health (eq .State.Health.Status 1)}}a{{else}}b{{end}}", "b"),
        ('{{or .Null .Name | printf "<%s>" | upper}}', "</WEB>"),
        ('{{$x := .Name}}{{range .Mounts}}{{$x := .Source}}{{end}}{{$x | printf "<%s>"}}', "</web>"),
        ("{{len .Null}} {{len .Mounts}} {{len .Name}}", "0 2 4"),
        ("{{.State.Nothing}}", "<no value>"),
        ("a{{- /* comment */ -}} b{{println .Name}}", "ab/web\n"),
        ('{{.Label "app"}}', "<app>"),
        ("{{json .Empty}} {{json .Null}}", "[] null"),
    ],
)
def test_a_template_says_what_go_says(template: str, text: str) -> None:
    assert Document(template).run(DOCUMENT, {"Label": lambda key: f"<{key}>"}) == text


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{.Nothing}}", "can't evaluate field Nothing"),
        ("{{.State.Nothing.More}}", "nil pointer evaluating .More"),
        ("{{.Name.More}}", "can't evaluate field More in type string"),
        ("{{.Name 3}}", ".Name has arguments but cannot be invoked as function"),
        ("{{.Label}}", "wrong number or type of args for Label"),
        ("{{$x}}", 'undefined variable "\\$x"'),
        ("{{range .Name}}{{end}}", "range can't iterate over /web"),
        ("{{index .Mounts 2}}", "index out of range: 2"),
        ("{{lower .Mounts}}", "wrong type for value; expected string; got list"),
    ],
)
def test_what_the_document_does_not_have_is_said_when_it_is_run(template: str, problem: str) -> None:
    parsed = Document(template)
    with pytest.raises(ValueError, match=problem):
        parsed.run(DOCUMENT, {"Label": str})


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{.Name", "unclosed action"),
        ("{{if .Name}}", "this {{if}} has no {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nix .Name}}", 'function "nix" not defined'),
        ('{{template "x"}}', "{{template}} is not supported"),
        ("{{range $a, $b, $c := .Mounts}}{{end}}", "too many declarations"),
        ("{{and}}", "wrong number of args for and"),
        ("(" * 3 + "{{" + "(" * 40 + "}}", "more than 32 levels"),
    ],
)
def test_what_is_no_template_is_said_at_once(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Document(template).run(DOCUMENT)
    assert "template: :1:" in str(caught.value)
