"""Base classes of the nodes that load and save files of ComfyUI's models folder, for recipes and AMED predictors alike.

A subclass sets `FILES`, names itself in `define_schema` with the help of `schema`, and says in `execute` what it gives out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from comfy_api.latest import io

from .model_files import ModelFiles


class LoadNode(io.ComfyNode):
    """A node with a dropdown of files."""

    FILES: ClassVar[ModelFiles[Any]]

    @classmethod
    def schema(cls, *, tooltip: str, **facts: Any) -> io.Schema:
        """The schema of a node whose one input is the file's name.

        Parameters
        ----------
        tooltip : str
            Of the dropdown.
        facts
            Further arguments of `io.Schema`.
        """
        return io.Schema(inputs=[io.Combo.Input("name", options=list(cls.FILES.listed()), tooltip=tooltip)], **facts)

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        if name is None:  # not known yet: it comes through a connection
            return True
        try:
            cls.FILES.load(name)
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float | None:
        return cls.FILES.modified(name)


class SaveNode(io.ComfyNode):
    """A node that writes a file under a name of the user's choice."""

    FILES: ClassVar[ModelFiles[Any]]

    @classmethod
    def schema(cls, *, content: io.Input, name: str, **facts: Any) -> io.Schema:
        """The schema of a node with the inputs content, name and overwrite.

        Parameters
        ----------
        content : io.Input
            The socket of what is saved.
        name : str
            The default name.
        facts
            Further arguments of `io.Schema`.
        """
        return io.Schema(
            inputs=[
                content,
                io.String.Input("name", default=name, tooltip="Name of the file, without folders."),
                io.Boolean.Input(
                    "overwrite", default=False, tooltip="Replace a file of this name. Off: a number is added to the name instead."
                ),
            ],
            is_output_node=True,
            **facts,
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return True if name is None else cls.FILES.problem_with(name) or True
