"""From the form in which the page saves a workflow to the form that `POST /prompt` takes, as the page does it."""

from __future__ import annotations

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTES = ("Note", "MarkdownNote")
NEVER, BYPASSED = 2, 4  # modes of nodes that do not run


def widgets_of(node_info: dict) -> list[tuple[str, dict]]:
    """Return name and options of the inputs that are widgets, in the order of their values in a saved workflow."""
    inputs = {**node_info["input"].get("required", {}), **node_info["input"].get("optional", {})}
    found = []
    for name, (kind, *options) in inputs.items():
        settings = options[0] if options else {}
        if (isinstance(kind, list) or kind in WIDGETS) and not settings.get("forceInput"):
            found.append((name, settings))
    return found


def values_after(name: str, settings: dict) -> int:
    """Return how many values of the page's own follow that of a widget: what the seed does next, the upload button."""
    seed = settings.get("control_after_generate") or name in ("seed", "noise_seed")
    return int(bool(seed)) + int(bool(settings.get("image_upload")))


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """Return the prompt of a workflow; raises KeyError for a node that the server does not have."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES or node.get("mode") in (NEVER, BYPASSED):
            continue
        inputs, values = {}, list(node.get("widgets_values") or ())
        for name, settings in widgets_of(object_info[node["type"]]):
            if values:
                inputs[name] = values.pop(0)
                del values[: values_after(name, settings)]
        for socket in node.get("inputs", ()):
            if socket.get("link") is not None:
                inputs[socket["name"]] = links[socket["link"]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
