"""Templates of others: they execute nothing, and they end, in bounded time and memory."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import DictLoader, StrictUndefined

from msr_adapter.errors import UserError
from msr_adapter.prompts import Prompts
from msr_adapter.prompts.sandbox import BoundedEnvironment
from msr_adapter.prompts.sandbox_budget import LimitError
from tests.support.judged_run import make_run

DOUBLING = "{% set ns = namespace(x='abcdefgh', y=none) %}{% for i in range(60) %}BODY{% endfor %}"
ENDLESS = {
    "a long range": "{% for i in range(10**12) %}{% endfor %}",
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a filtered loop": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "a macro of itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a tree of macros": "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
    "a recursive loop": "{% for i in [60] recursive %}{% if i %}{{ loop([i - 1, i - 1]) }}{% endif %}{% endfor %}",
    "itself, twice": "{% if false %}{% else %}{% include 'item_image.j2' %}{% endif %}{% include 'item_image.j2' %}",
    "a repeated text": "{{ 'a' * 10**10 }}",
    "a repeated text, in a constant": "{{ 'a' * 10000000000 }}",
    "a repeated list": "{{ [title] * 10**9 }}",
    "a power": "{{ 10**(10**10) }}",
    "squares": DOUBLING.replace("BODY", "{% set ns.y = (ns.y or 9) * (ns.y or 9) %}"),
    "a text twice": DOUBLING.replace("BODY", "{% set ns.x = ns.x + ns.x %}"),
    "a text twice, joined": DOUBLING.replace("BODY", "{% set ns.x = ns.x ~ ns.x %}"),
    "a text twice, in a block": DOUBLING.replace(
        "BODY", "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}"
    ),
    "a list of itself": DOUBLING.replace("BODY", "{% set ns.x = [ns.x, ns.x] %}") + "{{ ns.x }}",
    "a mapping of itself": DOUBLING.replace("BODY", "{% set ns.x = dict(a=ns.x, b=ns.x) %}") + "{{ ns.x }}",
    "a filter that pads": "{{ 'a'|center(10000000000) }}",
    "a filter that repeats": "{{ range(99999)|join('a' * 1000000) }}",
    "mapped, then joined": "{{ range(99999)|map('center', 100000)|join }}",
    "a filter in steps": "{{ range(99999)|batch(1)|sum(start=[])|length }}" * 50,
    "batches": "{{ ['a']|batch(10000000000, 'b')|list }}",
    "a method that pads": "{{ 'a'.ljust(10000000000) }}",
    "a method that replaces": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "a wide format": "{{ '{:10000000000}'.format(1) }}",
    "a given width": "{{ '{:{}}'.format('a', 10000000000) }}",
    "a wide format of the old kind": "{{ '%10000000000d' % 1 }}",
    "a given width of the old kind": "{{ '%*d'|format(10000000000, 1) }}",
    "slices": "{% set s = 'a' * 4000000 %}{% set ns = namespace(x=none) %}"
    "{% for i in range(99999) %}{% set ns.x = [ns.x, s[i:]] %}{% endfor %}",
    "bytes": "{{ (1).to_bytes(10000000000, 'big') }}",
    "words": "{{ lipsum(n=100000, max=100000) }}",
}


PROGRAM = """
import resource, sys
from pathlib import Path
from msr_adapter.prompts import Prompts
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
problems = Prompts(Path(sys.argv[1])).check()
print(*problems, sep="\\n")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_a_prompt_template_that_does_not_end_is_an_error_within_seconds(tmp_path: Path, text: str) -> None:
    (tmp_path / "item_image.j2").write_text("<image>" + text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    *said, megabytes = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-500:]
    assert said
    assert f"{tmp_path}/item_image.j2" in said[0]
    assert int(megabytes) < 1000


def test_a_template_is_stopped_on_any_thread(tmp_path: Path) -> None:
    (tmp_path / "item_image.j2").write_text(ENDLESS["nested ranges"])
    prompts, found = Prompts(tmp_path), []

    def render() -> None:
        with pytest.raises(UserError, match=r"item_image\.j2:1: the template does not end"):
            prompts.item_image("a title")
        found.append(True)

    threads = [threading.Thread(target=render) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]


def test_each_rendering_has_limits_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "item_image.j2").write_text("<image>{% for i in range(60000) %}{{ i }}{% endfor %}")
    prompts = Prompts(tmp_path)
    assert len({prompts.item_image("a title") for _ in range(20)}) == 1


NUMBERED = "{% for a, b in [('x', 1), ('y', 2)] %}{{ loop.index }}/{{ loop.length }} {{ a ~ b }};{% endfor %}"
CALLED = "{% macro m(a, b='z') %}{{ a|upper }}{{ caller() }}{{ b }}{% endmacro %}{% call m(title) %}-{% endcall %}"
ORDINARY = {
    NUMBERED: "1/2 x1;2/2 y2;",
    CALLED: "A TITLE-z",
    "{{ '%.2f'|format(1 / 3) }} {{ '{:,}'.format(3_000_000_000) }} {{ '%5d' % 7 }}": "0.33 3,000,000,000     7",
    "{{ title.split()|map('length')|sum }} {{ title|replace('a', 'b')|center(11)|length }}": "6 11",
    "{{ [3, 1, 2]|sort|join(', ') }} {{ {'a': 1}.items()|list }} {{ 7 // 2 + 2 ** 10 }}": "1, 2, 3 [('a', 1)] 1027",
    "{{ none|default('x') if nope is not defined else 'y' }}{{ title[2:4] }}": "Noneti",
    "{% for i in [[1, [2]]] recursive %}{{ i if i is number else loop(i) }}{% endfor %}": "12",
    "{% filter upper %}{% set x %}in{% endset %}{{ x }}{% endfilter %}{{ ['a', 'b']|batch(2)|list }}": "IN[['a', 'b']]",
}


@pytest.mark.parametrize(("text", "said"), ORDINARY.items())
def test_what_ends_is_rendered_as_ever(text: str, said: str) -> None:
    environment = BoundedEnvironment(loader=DictLoader({"a.j2": text}), undefined=StrictUndefined)
    assert environment.get_template("a.j2").render(title="a title") == said


@pytest.mark.parametrize("text", [
    "{{ file.write_text('x') }}", "{{ run('x') }}", "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(title) }}", "{{ known.update(a=1) }}", "{{ [title]|map(attribute='__class__')|join }}",
])  # fmt: skip
def test_a_template_calls_nothing_but_text(tmp_path: Path, text: str) -> None:
    environment = BoundedEnvironment(loader=DictLoader({"a.j2": text}), undefined=StrictUndefined)
    path, ran = tmp_path / "x", []
    with pytest.raises(Exception, match=r"unsafe|not safely callable"):
        environment.get_template("a.j2").render(file=path, run=lambda text: ran.append(text), known={}, title="x")
    assert not path.exists()
    assert ran == []


def test_a_template_of_deep_brackets_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "item_image.j2").write_text("<image>{{ " + "(" * 50_000 + ")" * 50_000 + " }}")
    assert any("item_image.j2" in str(problem) for problem in Prompts(tmp_path).check())


@pytest.mark.parametrize(("text", "said"), [
    ("{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch MARK') }}", "unsafe"),
    ("{{ cycler.__init__.__globals__.os.system('touch MARK') }}", "unsafe"),
    (ENDLESS["nested ranges"], "takes"),
    (ENDLESS["a repeated text"], "too large"),
    ("{{ nothing }}", "undefined"),
    ("{% if %}", r"report\.html\.j2:1"),
])  # fmt: skip
def test_a_report_template_executes_nothing_and_ends(tmp_path: Path, text: str, said: str) -> None:
    run, mark = make_run(tmp_path / "run", users=3), tmp_path / "mark"
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "report.html.j2").write_text(text.replace("MARK", str(mark)))
    with pytest.raises(UserError, match=said) as caught:
        run.evaluate(context=replace(run.context(), templates=folder))
    assert str(folder / "report.html.j2") in str(caught.value)
    assert not mark.exists()


def test_a_report_template_of_ones_own_is_rendered_and_escaped(tmp_path: Path) -> None:
    run, folder = make_run(tmp_path / "run", users=3), tmp_path / "templates"
    folder.mkdir()
    (folder / "report.html.j2").write_text("{% for key, value in facts %}{{ key }};{% endfor %}{{ name }}")
    run.evaluate(context=replace(run.context(), templates=folder))
    assert run.report().endswith("a &lt;b&gt;bold&lt;/b&gt; run")


def test_a_limit_is_an_error_of_its_own() -> None:
    environment = BoundedEnvironment(loader=DictLoader({"a.j2": "{{ 'a' * 10**9 }}"}))
    with pytest.raises(LimitError, match="too large"):
        environment.get_template("a.j2").render()
