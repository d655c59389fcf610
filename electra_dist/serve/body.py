"""What a request may hold: its bytes, its JSON, its inputs.

Everything that is wrong becomes a `RefusedError`: a status of HTTP and one sentence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from electra_dist.errors import UserError
from electra_dist.serve.answers import ServedModel
from electra_dist.serve.schema import InputForm
from electra_dist.serve.settings import Limits

_LONGEST_SENTENCE = 300


class RefusedError(Exception):
    """A request that gets no predictions."""

    def __init__(
        self, status: int, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})


async def read_body(
    chunks: AsyncIterator[bytes], headers: Mapping[str, str], most_bytes: int
) -> bytes:
    """All of it; raises `RefusedError` as soon as it is known to be too large, or no JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(
            415, f"the content type is {kind or 'missing'!r}; expected 'application/json'"
        )
    too_large = RefusedError(
        413, f"the body is larger than the {most_bytes:,} bytes that are taken"
    )
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise too_large
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > most_bytes:
            raise too_large
    return bytes(body)


def read_items(body: bytes, model: ServedModel, form: InputForm, limits: Limits) -> list[Any]:
    """The inputs of a body as the model takes them.

    Raises `RefusedError` that names the first wrong one.
    """
    items = []
    for index, one in enumerate(_inputs(body, limits.inputs)):
        place = f"inputs[{index}]"
        fields = _fields(one, form, place)
        _check_characters(fields, limits.characters, place)
        try:
            items.append(model.item(fields, place))
        except UserError as error:
            raise RefusedError(422, _shortened(str(error))) from error
    return items


def _inputs(body: bytes, most: int) -> list[Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(422, f"the body is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
        raise RefusedError(422, 'the body has no list of inputs; expected {"inputs": [...]}')
    unknown = [name for name in content if name != "inputs"]
    if unknown:
        raise RefusedError(422, f"the body has {unknown[0]!r}; expected 'inputs' and nothing else")
    inputs: list[Any] = content["inputs"]
    if not 1 <= len(inputs) <= most:
        raise RefusedError(422, f"inputs: there are {len(inputs):,}; expected 1 to {most:,}")
    return inputs


def _fields(one: Any, form: InputForm, place: str) -> Mapping[str, Any]:
    if isinstance(one, dict):
        return one
    names = " and ".join(repr(field.name) for field in form.fields)
    if not isinstance(one, str):
        raise RefusedError(422, f"{place}: is {_json_type(one)}; expected an object with {names}")
    if form.plain_field is None:
        raise RefusedError(422, f"{place}: is a plain text; expected an object with {names}")
    return {form.plain_field: one}


def _check_characters(fields: Mapping[str, Any], most: int, place: str) -> None:
    found = _characters(fields)
    if found > most:
        raise RefusedError(422, f"{place}: has {found:,} characters; expected at most {most:,}")


def _characters(value: Any) -> int:
    """Of all texts in a JSON value, however deep."""
    found = 0
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            found += len(one)
        elif isinstance(one, dict):
            rest += one.values()
        elif isinstance(one, list):
            rest += one
    return found


def _shortened(sentence: str) -> str:
    """An error may repeat what a client sent, at any length."""
    if len(sentence) <= _LONGEST_SENTENCE:
        return sentence
    return sentence[:_LONGEST_SENTENCE] + "..."


def _json_type(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "null")
