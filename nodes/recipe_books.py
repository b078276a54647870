"""Recipe books: the recipes of one checkpoint for several numbers of model calls, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..fitting.calibrate import MOST_CALLS
from ..recipes import Book, Recipe, looks_like_book
from .common.identity import weights_identity
from .common.sockets import RecipeType
from .file_nodes import SaveNode
from .model_files import ModelFiles
from .recipe_files import RECIPE_FILES
from .recipes import shown_recipe
from .report import as_ui

AUTO = "auto"

BOOK_FILES: ModelFiles[Book] = ModelFiles(
    kind="recipe book",
    place=RECIPE_FILES.place,
    path=RECIPE_FILES.path,
    endings=(".json",),
    key=RECIPE_FILES.key,
    read=Book.load,
    write=lambda path, book: book.save(path),
    shipped=Path(__file__).parent / "books",  # none ship yet
    save_node="FewStep Save Recipe Book",
    belongs=looks_like_book,
)


class FewStepPickFromBook(io.ComfyNode):
    """The recipe of a book for a number of calls."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepPickFromBook",
            display_name="FewStep Pick From Recipe Book",
            category="FewStep/recipes",
            description="The recipe for a number of model calls from a recipe book, a file with the recipes of one checkpoint for several "
            "numbers of calls. auto finds the book of the connected model. Connect the recipe to FewStep Apply Recipe.",
            inputs=[
                io.Combo.Input(
                    "book",
                    options=[AUTO, *BOOK_FILES.listed()],
                    default=AUTO,
                    tooltip="auto: the book that was made for the connected model. Or a book in models/fewstep/recipes.",
                ),
                io.Int.Input("calls", default=5, min=1, max=MOST_CALLS, tooltip="Model calls, as in steps of KSampler."),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance you sample with: among recipes for the same calls the one with the nearest guidance is taken.",
                ),
                io.Model.Input("model", optional=True, tooltip="The model whose book is wanted, with the LoRAs it was calibrated with."),
            ],
            outputs=[
                RecipeType.Output("recipe", display_name="recipe", tooltip="For FewStep Apply Recipe."),
                io.String.Output("text", display_name="text", tooltip="The recipe's text, to share."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, book: str, **others: Any) -> Any:
        if book != AUTO:
            return BOOK_FILES.modified(book)
        return [(name, BOOK_FILES.modified(name)) for name in BOOK_FILES.listed()]

    @classmethod
    def execute(cls, book: str = AUTO, calls: int = 5, cfg: float = 5.0, model: Any = None) -> io.NodeOutput:
        name, chosen = (book, BOOK_FILES.load(book)) if book != AUTO else book_of(model)
        recipe = chosen.pick(calls, cfg)
        report = f"From {name}\n{recipe.describe()}\n\n{chosen.describe()}"
        return io.NodeOutput(recipe, recipe.to_text(), ui=shown_recipe(recipe, report))


class FewStepSaveBook(SaveNode):
    """Recipes to a book."""

    FILES = BOOK_FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="FewStepSaveBook",
            display_name="FewStep Save Recipe Book",
            category="FewStep/recipes",
            description="Saves recipes of one checkpoint as a book in the folder models/fewstep/recipes, where FewStep Pick From Recipe "
            "Book finds it. Calibrate for several numbers of calls, such as 4, 5, 6, 8, 10, and connect texts.",
            content=io.String.Input(
                "texts", force_input=True, tooltip="Texts of recipes, one per line: the output texts of FewStep Calibrate."
            ),
            name="my book",
            outputs=[io.String.Output("description", display_name="description", tooltip="What is in the book.")],
        )

    @classmethod
    def execute(cls, texts: str, name: str = "my book", overwrite: bool = False) -> io.NodeOutput:
        recipes = [Recipe.from_text(line) for line in texts.split("\n") if line.strip()]
        if not recipes:
            raise ValueError("There are no recipes to save: connect the output texts of FewStep Calibrate.")
        book = Book((recipes[0],)).with_recipes(recipes)
        path = BOOK_FILES.save(book, name, overwrite)
        return io.NodeOutput(book.describe(), ui=as_ui(f"Saved as {path.name}\n{book.describe()}"))


def book_of(model: Any) -> tuple[str, Book]:
    """The name of the model's book, and the book.

    Raises
    ------
    ValueError
        If there is no model, or no book for it.
    """
    if model is None:
        raise ValueError("The book was auto, which finds the book of a model, but no model is connected: connect one, or choose a book.")
    identity, names = weights_identity(model), list(BOOK_FILES.listed())
    for name in names:
        try:
            book = BOOK_FILES.load(name)
        except ValueError:  # damaged; it may not be the one
            continue
        if identity and book.model_identity == identity:
            return name, book
    raise ValueError(
        f"There is no recipe book for this model in {BOOK_FILES.place}. Calibrate it for several numbers of calls and save them with "
        f"FewStep Save Recipe Book, or choose one of these: {', '.join(names) or 'there is none yet'}."
    )


NODES: list[type[io.ComfyNode]] = [FewStepPickFromBook, FewStepSaveBook]
