"""Prompts from templates: the user's folder first, then the bundled one.

Training rows and scoring requests come from the same methods, so that a model is asked what it was trained on. The
vectorized renderers must equal these, prompt by prompt.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.files import bundled, digest
from msr_adapter.prompts.attributes import NOBODY, KnownAttributes, UsedFields, UserFields, fields_used
from msr_adapter.prompts.check import check
from msr_adapter.prompts.neutralize import DESCRIPTION_LIMIT, RULES_VERSION, TEXT_LIMIT, neutralise
from msr_adapter.prompts.sandbox import BoundedEnvironment, last_template_line
from msr_adapter.prompts.sandbox_budget import LimitError
from msr_adapter.prompts.template_files import parse, read_source, sources
from msr_adapter.prompts.variables import (
    IMAGE_PLACEHOLDER,
    TEMPLATE_NAMES,
    VARIABLES,
    HistoryItem,
    Wording,
    is_shown,
    placeholders,
)

_PLAIN = Wording()
_ANSWER = "-answer"
_NO_ATTRIBUTES = KnownAttributes()
_NO_SUCH_FIELD = re.compile(r"'[\w.]+\.(HistoryItem|UserFields) object' has no attribute '(\w+)'")


class Prompts:
    """Renders the templates. Every value is neutralised first, so only a template can place an image.

    Pickled with the text of its templates: they are the same wherever it travels.
    """

    def __init__(
        self,
        folder: Path | None = None,
        wording: Wording = _PLAIN,
        texts: Mapping[str, str] | None = None,
        question: str = "recommend",
        cut: Callable[[str], str] | None = None,
        recent: int = 0,
    ) -> None:
        """Read templates from ``folder``, then the bundled ones; or take them from ``texts``, by file name.

        ``question`` is the template that `recommend` renders: `recommend` itself, `recommend-image-first`, or that of a
        question which is answered with a text, `next-item` or `user-text`; ``cut`` shortens such a text. Of the
        latest ``recent`` items of a history it is told with their images.
        """
        self.folder, self.wording, self.question, self.cut, self.recent = folder, wording, question, cut, recent
        folders = [bundled("templates")] if folder is None else [folder, bundled("templates")]
        # Nothing is escaped: a prompt is no HTML. auto_reload would cost one stat per prompt.
        self.environment = BoundedEnvironment(
            loader=jinja2.FileSystemLoader(folders) if texts is None else jinja2.DictLoader(texts),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            keep_trailing_newline=False,
            auto_reload=False,
        )
        # The same in every prompt of a run, hence globals, no variables: the parts of a template know them too.
        self._said = {"noun": neutralise(wording.noun), "language": neutralise(wording.language)}
        self.environment.globals |= self._said
        self._compiled: dict[str, jinja2.Template] = {}
        self._fields: dict[tuple[str, ...], UsedFields] = {}

    def __reduce__(self) -> "tuple[type[Prompts], tuple[Any, ...]]":
        texts: dict[str, str] = {}
        for name in TEMPLATE_NAMES:
            texts |= sources(self.environment, name)
        return Prompts, (self.folder, self.wording, texts, self.question, self.cut, self.recent)

    def item_summary(self, title: str, image: int, text: str = "", item: HistoryItem | None = None) -> str:
        """Return the prompt that asks for a description of one item with ``image`` images, which are the first of it.

        It has a placeholder for each that the template shows. ``text`` is what the source says of the item, truncated
        to `DESCRIPTION_LIMIT` characters; ``item`` is what the template calls so, with all that is known beside.
        """
        values = {"title": neutralise(title), "text": neutralise(text, DESCRIPTION_LIMIT), **_images(image)}
        return self._ask("item_summary", values | self._about("item_summary", item, title, text), images=image)

    def item_text(self, title: str, text: str, item: HistoryItem | None = None) -> str:
        """Return the first prompt of mode `fusion`, which asks for a summary of what the source says of one item."""
        values = {"title": neutralise(title), "text": neutralise(text, DESCRIPTION_LIMIT)}
        return self._ask("item_text", values | self._about("item_text", item, title, text))

    def item_image(self, title: str, item: HistoryItem | None = None, image: int = 1) -> str:
        """Return the second prompt of mode `fusion`, which asks what the ``image`` images of an item show."""
        values = {"title": neutralise(title), "images": placeholders(image), **self._about("item_image", item, title)}
        return self._ask("item_image", values, images=image)

    def item_fusion(self, title: str, text_summary: str, image_summary: str, item: HistoryItem | None = None) -> str:
        """Return the third prompt of mode `fusion`, which asks for one summary of the answers to the first two."""
        told = {"text_summary": text_summary, "image_summary": image_summary}
        values = {name: neutralise(value, TEXT_LIMIT) for name, value in told.items()}
        about = self._about("item_fusion", item, title)
        return self._ask("item_fusion", {"title": neutralise(title), **values, **about})

    def user_summary(self, previous: str, items: Sequence[HistoryItem], user: UserFields = NOBODY) -> str:
        """Return the prompt that asks for a user summary from ``items`` (oldest first) and the ``previous`` one.

        ``previous`` is empty at first.
        """
        values = {"previous": neutralise(previous, TEXT_LIMIT), "items": _neutral_items(items), "user": user.neutral()}
        return self._ask("user_summary", values)

    def history(self, items: Sequence[HistoryItem], user: UserFields = NOBODY) -> str:
        """Return a history (oldest first) as text, without any model: the user summary of mode `none`."""
        return self._render("history", {"items": _neutral_items(items), "user": user.neutral()})

    def recommend(
        self, user_summary: str, title: str, image: int, item: HistoryItem | None = None, user: UserFields = NOBODY,
        recent: Sequence[HistoryItem] = (),
    ) -> str:  # fmt: skip
        """Return the prompt that asks about a user and a candidate with ``image`` images, for training and scoring.

        A question that is answered with a text is told only one of them; `answer` has the other one. ``recent`` are
        the latest items of the user's history, with their images.
        """
        values = {"user_summary": neutralise(user_summary, TEXT_LIMIT), "title": neutralise(title), **_images(image)}
        values |= {**self._about("recommend", item, title), "user": user.neutral(), "recent": _neutral_items(recent)}
        told = sum(len(one.images) for one in recent) if self.shows_recent else 0
        return self._render(self.question, _known(values, self.question), image if self.shows_images else 0, told)

    @property
    def shows_images(self) -> bool:
        """Whether the question in use shows the candidate's image."""
        return "image" in VARIABLES[self.question]

    @property
    def shows_recent(self) -> bool:
        """Whether the question in use shows the latest items of the history with their images."""
        return self.recent > 0 and "recent" in VARIABLES[self.question] and self.fields("recommend").recent

    @cached_property
    def recent_first(self) -> bool:
        """Whether the images of the history come before those of the candidate, as the template has it."""
        one = HistoryItem("A title", images=placeholders(1))
        history, both = (self.recommend("A user", "A title", image, recent=[one]) for image in (0, 1))
        # Up to the history's image, a candidate's image behind it changes nothing.
        place = history.index(IMAGE_PLACEHOLDER)
        return both.startswith(history[:place] + IMAGE_PLACEHOLDER)

    @property
    def answer_template(self) -> str:
        """The template of the text that answers the question in use; empty where a word does."""
        return self.question + _ANSWER if self.question + _ANSWER in VARIABLES else ""

    @property
    def answers_with_user(self) -> bool:
        """Whether that text is about the user, and not about the candidate."""
        return bool(self.answer_template) and "user_summary" in VARIABLES[self.answer_template]

    def answer(self, user_summary: str, title: str, item: HistoryItem | None = None, user: UserFields = NOBODY) -> str:
        """Return the text that answers the question in use: what is said of the candidate, or of the user."""
        values: dict[str, Any] = {"user_summary": neutralise(user_summary, TEXT_LIMIT), "title": neutralise(title)}
        values |= {**self._about("recommend", item, title), "user": user.neutral()}
        text = self._render(self.answer_template, _known(values, self.answer_template))
        return self.cut(text) if self.cut else text

    @property
    def without_evidence(self) -> str:
        """The prompt of the question in use without the user, or the candidate, that it asks about."""
        return self.recommend("", "", image=False)

    def digest(self, name: str) -> str:
        """Return the digest of a template, of all that it includes, extends or imports, and of the neutralising rules.

        Noun and language count where one of these says them; lengths are settings of the stage. `recommend` stands for
        the question in use.
        """
        found = self.sources(name)
        trees = [self.environment.parse(source) for source in found.values()]
        used = {node.name for tree in trees for node in tree.find_all(nodes.Name)}
        said = {variable: value for variable, value in self._said.items() if variable in used}
        return digest([RULES_VERSION, found, *([said] if said else [])])

    def sources(self, name: str) -> dict[str, str]:
        """Return file name -> text of a template and of everything that it includes, extends or imports."""
        return {file: text for one in self._files(name) for file, text in sources(self.environment, one).items()}

    def fields(self, *names: str) -> UsedFields:
        """Return which fields of items and users these templates may look at; `recommend` is the question in use."""
        key = tuple(file for name in names for file in self._files(name))
        if key not in self._fields:
            try:
                files = {file: text for name in key for file, text in sources(self.environment, name).items()}
                self._fields[key] = fields_used([self.environment.parse(text) for text in files.values()])
            except (UserError, jinja2.TemplateError, RecursionError):  # told by whoever renders or checks it
                return UsedFields(None, True, True)
        return self._fields[key]

    @property
    def says_candidates_summaries(self) -> bool:
        """Whether the question says the summary of the candidate, which any item may be."""
        used = self.fields("recommend")
        return used.item and used.has("summary")

    def _files(self, name: str) -> tuple[str, ...]:
        """Return the templates that ``name`` stands for: `recommend` is the question in use, with its answer."""
        return tuple(filter(None, (self.question, self.answer_template))) if name == "recommend" else (name,)

    def check(self, known: KnownAttributes = _NO_ATTRIBUTES) -> list[Problem]:
        """Return every problem of every template: missing, unparsable, unknown variables, wrong number of images.

        A template is not rendered here that looks at attributes whose types are not known yet.
        """
        cases = self._cases(known)
        untold = [name for name in cases if known.unknown(self.fields(name))]
        return check(self.environment, self.folder, {name: () if name in untold else cases[name] for name in cases})

    def _cases(self, known: KnownAttributes) -> dict[str, list[Callable[[], str]]]:
        """Return template -> renderings of all kinds that occur."""
        (full, whole), (gaps, bare) = (known.samples(gaps=gaps) for gaps in (False, True))
        one = HistoryItem("A title", "A summary", "Some text", "Some category", full, "bought")
        other = HistoryItem("", attributes=gaps)
        items, users = [one, other], dict.fromkeys((UserFields(whole), UserFields(bare)))
        texts, flags, abouts = ("Some text", ""), (True, False), (one, other)
        answers: dict[str, list[Callable[[], str]]] = {}
        if self.answer_template:
            answers[self.answer_template] = [
                partial(self.answer, *case) for case in product(texts, texts, abouts, users)
            ]
        return answers | {
            "item_summary": [partial(self.item_summary, *case) for case in product(texts, flags, texts, abouts)],
            "item_text": [partial(self.item_text, *case) for case in product(texts, texts, abouts)],
            "item_image": [partial(self.item_image, *case) for case in product(texts, abouts)],
            "item_fusion": [partial(self.item_fusion, title, "Some text", "Some text", about)
                            for title, about in product(texts, abouts)],
            "user_summary": [partial(self.user_summary, *case) for case in product(texts, [items], users)],
            "history": [partial(self.history, items, user) for user in users],
            self.question: [partial(self.recommend, *case) for case in product(texts, texts, flags, abouts, users)],
        }  # fmt: skip

    def _about(self, name: str, item: HistoryItem | None, title: str, text: str = "") -> dict[str, Any]:
        """Return what a template calls `item`, if it does; without one, what else is known of it."""
        return {"item": (item or HistoryItem(title, text=text)).neutral()} if self.fields(name).item else {}

    def _ask(self, name: str, values: dict[str, Any], images: int = 0) -> str:
        """Render a template whose answer has a length, and tell it that length."""
        return self._render(name, values | self.wording.length(name), images)

    def _render(self, name: str, values: dict[str, Any], images: int = 0, recent: int = 0) -> str:
        """Render ``name``; any failure is the template's, hence the user's: `UserError` with its line.

        It has a placeholder for each of the history's ``recent`` images, and for the item's ``images`` or the first.
        """
        try:
            template = self._compiled.get(name) or self._compile(name)
            text = template.render(values)
        except Exception as error:
            raise UserError(self.problem(name, error)) from error
        if not is_shown((found := text.count(IMAGE_PLACEHOLDER)) - recent, images):
            raise self.image_error(name, found, images + recent)
        return text

    def tree(self, name: str) -> nodes.Template:
        """Parse a template: a new tree each time."""
        return parse(self.environment, *read_source(self.environment, f"{name}.j2"))

    def compile(self, name: str, tree: nodes.Template) -> jinja2.Template:
        """Compile what is left of a template's ``tree``; its failures are placed as those of the whole one."""
        path = read_source(self.environment, f"{name}.j2")[1]
        try:
            code = self.environment.compile(tree, f"{name}.j2", path)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(self.problem(name, error)) from error
        return self.environment.template_class.from_code(self.environment, code, self.environment.make_globals(None))

    def image_error(self, name: str, found: int, images: int) -> UserError:
        """Return the error of a prompt with ``found`` placeholders in place of ``images``."""
        return UserError(_image_problem(self._compile(name), found, images))

    def _compile(self, name: str) -> jinja2.Template:
        return self._compiled.setdefault(name, self.environment.get_template(f"{name}.j2"))

    def problem(self, name: str, error: Exception) -> Problem:
        """Place a failure: a syntax error knows its line, a failure while rendering leaves it in the traceback."""
        if isinstance(error, jinja2.TemplateSyntaxError):
            return Problem(f"{error.filename or error.name}:{error.lineno}", "", error.message or "cannot be parsed")
        where = last_template_line(error.__traceback__) or f"{name}.j2"
        if isinstance(error, LimitError | RecursionError | MemoryError):
            found = str(error) if isinstance(error, LimitError) else "it calls itself without end"
            return Problem(
                where, "", f"the template does not end: {found}", "", "Shorten its loops and what they make."
            )
        known = ", ".join(VARIABLES[name])
        if absent := _NO_SUCH_FIELD.fullmatch(str(error)):
            item = absent[1] == "HistoryItem"
            fields = "title, summary, text, category, event and data.items.attributes"
            allowed = f"items have {fields}" if item else "users have data.users.attributes"
            return Problem(where, "", f"no attribute {absent[2]!r}", allowed)
        if isinstance(error, jinja2.UndefinedError) and " is missing here; " in str(error):
            found_at, _, step = str(error).partition("; ")
            return Problem(where, "", found_at, "", step[0].upper() + step[1:])
        return Problem(where, "", f"{type(error).__name__}: {error}", f"variables: {known}; items have title, summary")


def _images(number: int) -> dict[str, Any]:
    return {"image": number > 0, "images": placeholders(number)}


def _known(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {variable: value for variable, value in values.items() if variable in VARIABLES[name]}


def _neutral_items(items: Sequence[HistoryItem]) -> list[HistoryItem]:
    return [item.neutral() for item in items]


def _image_step(name: str, images: int) -> str:
    known = VARIABLES.get(name, ())
    if images > 1:
        return "Write {% for image in images %}<image>{% endfor %}; of `recent`, {{ image }} for each of item.images."
    return "Write it once, inside {% if image %}." if "image" in known else "Remove it."


def _image_problem(template: jinja2.Template, found: int, images: int) -> Problem:
    path = template.filename or str(template.name)
    source = Path(path).read_text(encoding="utf-8") if Path(path).is_file() else ""
    lines = [number for number, line in enumerate(source.splitlines(), 1) if IMAGE_PLACEHOLDER in line]
    case = "no image" if not images else "an image" if images == 1 else f"{images} images"
    return Problem(
        f"{path}:{lines[0]}" if lines else path,
        IMAGE_PLACEHOLDER,
        f"{plural(found, 'placeholder')} in the prompt of an item with {case}",
        f"{images} expected",
        _image_step(Path(path).stem, images),
    )
