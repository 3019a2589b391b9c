from pathlib import Path

import pytest

from lab.training.shapes import tiny_recipe, write_data, write_encoder
from medreward.lab.training.corpus import Corpus, read_corpus


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "model"
    write_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return read_corpus(tiny_recipe(encoder), [data], tmp_path_factory.mktemp("cache"))
