"""The notebook in examples/, run in a kernel of its own as Jupyter runs it."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import Model

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def cells(tiny: Path) -> list[Any]:
    """The code cells with what each gave, on the tiny bundle."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs for cell in code), "it is kept without outputs"
    assert code[0].source == 'BUNDLE = "../demo/lyrics.bundle"'
    code[0].source = f"BUNDLE = {str(tiny)!r}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the event loops of Jupyter's own packages
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return code


def results(cell: Any) -> list[Any]:
    return [output.data for output in cell.outputs if output.output_type == "execute_result"]


def test_a_model_shows_its_facts(cells: list[Any]) -> None:
    (shown,) = results(cells[1])
    assert "tflite-float32 in litert, 8,704 bytes" in shown["text/html"]
    for words in ("x int32 [1]", "y float32 [1, 21]", "h float32 [1, 8]; c float32 [1, 8]", "21 characters"):
        assert words in shown["text/html"]
    assert shown["text/plain"].startswith("<Model 2b9effb9 litert float32")


def test_text_streams_and_nothing_else_is_seen(cells: list[Any], models: dict[str, Model]) -> None:
    written = "".join(output.text for output in cells[2].outputs)
    assert "分开" + written == models["litert"].generate("分开", 50, temperature=0.8, seed=7)
    assert {output.name for cell in cells for output in cell.outputs if output.output_type == "stream"} == {
        "stdout"
    }


def test_the_other_cells_give_what_python_gives(cells: list[Any], models: dict[str, Model]) -> None:
    model = models["litert"]
    (texts,) = results(cells[3])
    written = ast.literal_eval(texts["text/plain"])
    assert written == model.generate("分开", 20, n=3, temperature=0.8, seed=7)
    (score,) = results(cells[4])
    assert score["text/plain"].startswith(f"({model.score('分开 云不走').perplexity!r},")
    (shape,) = results(cells[5])
    assert shape["text/plain"].startswith("((1, 21), ")
