"""The routes, with a model of every kind: the answers of `electra-dist predict`, and what a client
is told when something is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import safetensors.torch
import torch

from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.finetune.tasks.texts.predictor import TextPredictor
from electra_dist.serve.answers import open_model
from electra_dist.serve.settings import Limits, Settings
from tests.serve.conftest import MARKERS, ask, predict
from tests.support.toy_task import random_model

TEXTS = [f"The value of object {number} is {'very ' * (number % 7)}long." for number in range(40)]
INPUTS: dict[str, list[Any]] = {
    "classification": [{"text": text} for text in TEXTS],
    "pairs": [{"premise": text, "hypothesis": TEXTS[-1]} for text in TEXTS],
    "question-answering": [
        {"id": str(number), "question": "What is it?", "context": 4 * text}
        for number, text in enumerate(TEXTS)
    ],
    "discriminator": [{"text": text} for text in TEXTS],
    "generator": [{"text": text.replace("value", "[MASK]")} for text in TEXTS],
}


@pytest.mark.parametrize("kind", INPUTS)
def test_answers_are_those_of_predict_whoever_asks_at_the_same_time(
    kind: str,
    models: Path,
    here: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = INPUTS[kind]
    file = tmp_path / "inputs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in inputs))
    words = ["predict", str(models / kind), "--input", str(file), "--json", "--device", "cpu"]
    assert cli.main(words) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    url = here(kind, Settings(folders=(), batch=8, wait_seconds=0.005))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda one: predict(url, [one]), inputs))
    alone = [reply.content["predictions"][0] for reply in replies]
    together = predict(url, inputs).content["predictions"]
    for found in (alone, together):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)


def assert_close(one: Any, other: Any) -> None:
    """The same JSON, numbers but for 1e-6."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_close(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-6)
    else:
        assert one == other


@pytest.mark.parametrize("kind", [*MARKERS, "suspects"])
def test_every_model_answers_the_example_of_its_own_page(
    here: Callable[..., str], kind: str
) -> None:
    url = here(kind)
    described = ask(f"{url}/openapi.json").content["paths"]["/predict"]["post"]["requestBody"]
    example = described["content"]["application/json"]["example"]
    reply = predict(url, example["inputs"])
    assert reply.status == 200, reply.content
    assert len(reply.content["predictions"]) == 1


def test_a_plain_text_stands_for_the_only_field(here: Callable[..., str]) -> None:
    url = here("classification")
    plain = predict(url, ["a text"])
    assert plain.status == 200
    assert plain.content == predict(url, [{"text": "a text"}]).content
    assert plain.content["model"] == "classification"


LIMITS = Limits(bytes=2000, inputs=4, characters=300)
WRONG = [
    (b"", 422, "the body is not JSON"),
    (b'{"inputs": [', 422, "the body is not JSON"),
    (b'{"inputs": ["\xff"]}', 422, "the body is not JSON"),
    (b"[1]", 422, 'the body has no list of inputs; expected {"inputs": [...]}'),
    (b'{"inputs": "a"}', 422, "the body has no list of inputs"),
    (b'{"inputs": ["a"], "top": 1}', 422, "the body has 'top'; expected 'inputs' and nothing"),
    (b'{"inputs": []}', 422, "inputs: there are 0; expected 1 to 4"),
    (b'{"inputs": ["a","a","a","a","a"]}', 422, "inputs: there are 5; expected 1 to 4"),
    (b'{"inputs": ["a", 3]}', 422, "inputs[1]: is a number; expected an object with 'text'"),
    (b'{"inputs": ["a", null]}', 422, "inputs[1]: is null; expected an object with 'text'"),
    (b'{"inputs": [{"txt": "a"}]}', 422, "inputs[0]: 'text' is None"),
    (b'{"inputs": [{"text": [["a"]]}]}', 422, "inputs[0]: 'text' is [['a']]"),
    (b'{"inputs": ["%s"]}' % (b"a" * 301), 422, "inputs[0]: has 301 characters; expected at"),
    (b'{"inputs": [%s"a"%s]}' % (b"[" * 900, b"]" * 900), 422, "inputs[0]: is a list"),
    (b'{"inputs": ["%s"]}' % (b"a" * 2000), 413, "the body is larger than the 2,000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "sentence"), WRONG)
def test_a_wrong_body_is_refused_in_one_sentence(
    body: bytes, status: int, sentence: str, here: Callable[..., str]
) -> None:
    url = here("classification", Settings(folders=(), limits=LIMITS))
    reply = ask(f"{url}/predict", body)
    assert reply.status == status
    assert list(reply.content) == ["error"]
    assert reply.content["error"].startswith(sentence)
    assert "\n" not in reply.content["error"]
    assert predict(url, ["still here"]).status == 200


@pytest.mark.parametrize(
    ("kind", "wrong", "sentence"),
    [
        ("pairs", "one text", "inputs[1]: is a plain text; expected an object with 'premise' and"),
        ("pairs", {"premise": "a"}, "inputs[1]: 'hypothesis' is None"),
        ("question-answering", {"question": "a"}, "inputs[1]"),
        ("discriminator", "word " * 200, "inputs[1]: 602 tokens; the model takes up to 96"),
        ("generator", "no mask", "inputs[1]: has no [MASK]"),
    ],
)
def test_the_model_refuses_one_input_by_its_index(
    kind: str, wrong: Any, sentence: str, here: Callable[..., str]
) -> None:
    reply = predict(here(kind), [INPUTS[kind][0], wrong])
    assert reply.status == 422
    assert reply.content["error"].startswith(sentence)


def test_a_body_that_is_not_declared_as_json_is_refused(here: Callable[..., str]) -> None:
    """So that no page of another site can ask without the browser asking first."""
    reply = ask(f"{here('classification')}/predict", b'{"inputs": ["a"]}', kind="text/plain")
    assert reply.status == 415
    assert "application/json" in reply.content["error"]
    assert "access-control-allow-origin" not in reply.headers


def test_other_paths_and_methods_get_a_sentence_too(here: Callable[..., str]) -> None:
    url = here("classification")
    assert ask(f"{url}/elsewhere").status == 404
    reply = ask(f"{url}/predict")
    assert reply.status == 405
    assert reply.content == {"error": "GET /predict: Method Not Allowed; /docs says what there is"}


def test_a_failure_of_the_server_is_no_traceback_for_the_client(
    here: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = here("classification")

    def broken(self: TextPredictor, items: Any) -> Any:
        raise RuntimeError("secret of the server")

    with monkeypatch.context() as patch:
        patch.setattr(TextPredictor, "outputs", broken)
        reply = predict(url, ["a text"])
    assert reply.status == 500
    assert reply.content == {"error": "the server failed; its log says why"}
    assert "secret of the server" in capsys.readouterr().err
    assert predict(url, ["a text"]).status == 200


@pytest.mark.parametrize("kind", INPUTS)
def test_the_schema_of_openapi_is_what_the_server_takes(
    kind: str, here: Callable[..., str]
) -> None:
    url = here(kind)
    operation = ask(f"{url}/openapi.json").content["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    example = content["example"]
    jsonschema.validate(example, content["schema"])
    reply = ask(f"{url}/predict", json.dumps(example).encode())
    assert reply.status == 200
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(reply.content, answer)
    for wrong in ({}, {"inputs": []}, {"inputs": [3]}, {"inputs": [{}]}):
        assert ask(f"{url}/predict", json.dumps(wrong).encode()).status == 422
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, content["schema"])


def test_the_figures_count_requests_and_batches(here: Callable[..., str]) -> None:
    url = here("classification", Settings(folders=(), batch=4))
    for inputs in (["a"], ["a", "b", "c"], []):
        predict(url, inputs)
    figures = ask(f"{url}/metrics")
    assert figures.headers["content-type"].startswith("text/plain; version=")
    lines = figures.content.splitlines()
    assert 'electra_dist_requests_total{status="200"} 2.0' in lines
    assert 'electra_dist_requests_total{status="422"} 1.0' in lines
    assert "electra_dist_request_seconds_count 3.0" in lines
    assert "electra_dist_batch_inputs_count 2.0" in lines
    assert "electra_dist_batch_inputs_sum 4.0" in lines
    assert "electra_dist_waiting_inputs 0.0" in lines


def test_several_folders_answer_as_their_mean(models: Path, tmp_path: Path) -> None:
    first = models / "classification"
    second = tmp_path / "second"
    random_model(second, "ElectraForSequenceClassification", first)
    (second / "electra_dist.json").write_bytes((first / "electra_dist.json").read_bytes())
    weights = safetensors.torch.load_file(second / "model.safetensors")
    weights = {name: 1.5 * value for name, value in weights.items()}
    safetensors.torch.save_file(weights, second / "model.safetensors", {"format": "pt"})
    device = torch.device("cpu")

    def probabilities(*folders: Path) -> torch.Tensor:
        model = open_model(folders, device)
        found = model.predict([model.item({"text": text}, "here") for text in TEXTS[:5]])
        return torch.tensor([one.content["probabilities"]["yes"] for one in found])

    one = probabilities(first)
    other = probabilities(second)
    assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(probabilities(first, second), (one + other) / 2, atol=1e-6, rtol=0)


def test_models_that_mean_different_things_do_not_answer_together(models: Path) -> None:
    device = torch.device("cpu")
    with pytest.raises(UserError, match="its columns is"):
        open_model([models / "classification", models / "pairs"], device)
    with pytest.raises(UserError, match="only fine-tuned models answer together"):
        open_model([models / "discriminator", models / "generator"], device)
