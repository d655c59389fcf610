"""URLs: what is one, and which are refused without their secret being printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra_dist.files.urls import credential_in, is_url, without_parameters


def test_a_url_is_no_path() -> None:
    assert is_url("s3://bucket/shards")
    assert is_url("HTTPS://host/a")
    assert not any(is_url(where) for where in ("shards", "/a/b", "C:/a", Path("s3:/a"), "a:b"))


@pytest.mark.parametrize(
    "url",
    [
        "https://me:opensesame@host/a",
        "s3://opensesame@bucket/a",
        "https://host/a?token=opensesame",
        "https://host/a?x=1&X-Amz-Signature=opensesame",
    ],
)
def test_a_credential_is_found_and_not_told(url: str) -> None:
    problem = credential_in(url)
    assert problem is not None
    assert "opensesame" not in problem
    assert "set it in the environment" in problem


@pytest.mark.parametrize("url", ["s3://bucket/a", "sftp://me@host/a", "https://host/a?page=2"])
def test_a_url_without_a_credential_is_taken(url: str) -> None:
    assert credential_in(url) is None


def test_parameters_are_not_printed() -> None:
    assert without_parameters("https://host/a?b=c") == "https://host/a?..."
    assert without_parameters("https://host/a") == "https://host/a"
