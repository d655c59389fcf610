"""What an input of each task looks like: fields with their meaning, an example, a JSON schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InputField:
    """One text of an input, or a list of texts; `rows` is its height in the form."""

    name: str
    meaning: str
    example: str | tuple[str, ...]
    rows: int = 3

    @property
    def is_list(self) -> bool:
        """Whether it holds several texts: in the form, one per line."""
        return not isinstance(self.example, str)

    @property
    def shown(self) -> str:
        """The example as the form shows it."""
        if isinstance(self.example, str):
            return self.example
        return "\n".join(self.example)

    def schema(self) -> dict[str, Any]:
        """Of the field alone."""
        text: dict[str, Any] = {"type": "string"}
        if self.is_list:
            text = {"type": "array", "items": text, "minItems": 1}
        return text | {"description": self.meaning}


@dataclass(frozen=True)
class InputForm:
    """The fields of an input. A task with one field takes a plain text in its place too."""

    fields: tuple[InputField, ...]

    @property
    def example(self) -> dict[str, str | list[str]]:
        """An input that every model of the task can answer."""
        return {
            field.name: list(field.example) if field.is_list else field.shown
            for field in self.fields
        }

    @property
    def plain_field(self) -> str | None:
        """The field that a plain text fills; None where one text is not enough."""
        if len(self.fields) == 1:
            return self.fields[0].name
        return None

    def schema(self) -> dict[str, Any]:
        """Of one input."""
        asked: dict[str, Any] = {
            "type": "object",
            "required": [field.name for field in self.fields],
            "properties": {field.name: field.schema() for field in self.fields},
            "additionalProperties": True,
        }
        if self.plain_field is None:
            return asked
        return {"anyOf": [{"type": "string"}, asked]}

    def body_schema(self, most_inputs: int) -> dict[str, Any]:
        """Of the body of a request."""
        return {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": most_inputs,
                    "items": self.schema(),
                }
            },
            "additionalProperties": False,
        }


def openapi_of_predict(form: InputForm, most_inputs: int) -> dict[str, Any]:
    """What the page of OpenAPI says of `/predict`."""
    body = {
        "schema": form.body_schema(most_inputs),
        "example": {"inputs": [form.example]},
    }
    predictions = {
        "type": "array",
        "items": {"type": "object"},
        "description": "as `electra-dist predict --json` prints them",
    }
    answer = {
        "type": "object",
        "required": ["predictions", "model"],
        "properties": {"predictions": predictions, "model": {"type": "string"}},
    }
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    responses: dict[str, Any] = {
        str(status): {"description": meaning, "content": {"application/json": {"schema": error}}}
        for status, meaning in _ERRORS.items()
    }
    responses["200"] = {
        "description": "one prediction per input",
        "content": {"application/json": {"schema": answer}},
    }
    return {
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": responses,
    }


_ERRORS = {
    401: "the bearer token is missing or wrong",
    413: "the body is too large",
    415: "the body is not declared as JSON",
    422: "an input is wrong; the sentence names it",
    500: "the server failed",
    503: "too many inputs wait; Retry-After says for how many seconds",
    504: "no answer in time",
}
_QUESTION = InputField("question", "what is asked", "Where was it shown?", rows=1)
_CONTEXT = InputField(
    "context",
    "the text that may hold the answer",
    "It was made by Anna and shown in Lisbon for a week.",
    rows=6,
)
_MASKED = InputField("text", "with [MASK] where a token is missing", "The [MASK] is long.")
#: By task or network; the others have one text or two, with names of the training's own.
_FORMS = {
    "question-answering": InputForm((_QUESTION, _CONTEXT)),
    "generator": InputForm((_MASKED,)),
}
#: Tasks with a list in their second field: what both hold, and an example.
_LISTED: dict[str, tuple[tuple[str, str], tuple[str, tuple[str, ...]]]] = {
    "multiple-choice": (
        ("what the choices are about", "It began to rain, so Anna"),
        ("the choices", ("opened her umbrella.", "ate the map.")),
    ),
    "ranking": (
        ("what is looked for", "how to bake bread"),
        ("the candidates", ("Bread needs flour and an hour.", "The train was late.")),
    ),
}
_TEXTS = (
    ("the text", "A gripping story, told without a wasted word."),
    ("the second text of the pair", "The story is gripping."),
)


def input_form(kind: str, names: Sequence[str]) -> InputForm:
    """Of a task or network whose inputs consist of the texts `names`."""
    if kind in _FORMS:
        return _FORMS[kind]
    if kind in _LISTED:
        (about, text), (listed, texts) = _LISTED[kind]
        return InputForm(
            (InputField(names[0], about, text), InputField(names[1], listed, texts, rows=5))
        )
    return InputForm(
        tuple(
            InputField(name, meaning, example)
            for name, (meaning, example) in zip(names, _TEXTS, strict=False)
        )
    )
