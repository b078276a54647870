"""Files of predictors and tables: the way there and back, and everything that can be wrong with one."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from fewstep import __version__
from fewstep.amed import AmedConfig, AmedPredictor, AmedTable, load_amed, save_amed
from fewstep.amed.checkpoint import VERSION

from .test_predictor import config_of, features, shaken

FACTS = {
    "teacher": "heun, 2 sub-steps", "feature_source": "middle block of UNet", "model": "demo", "model_identity": "0123456789abcdef",
    "cfg": 3.0, "seed": 7, "losses": [0.5, 0.25, 0.1], "error_before": 0.3, "error_after": 0.2, "trajectories": 10_000,
    "note": None, "details": {"method": "steps", "clipped": False},
}  # fmt: skip


@pytest.fixture(params=["predictor", "table"])
def net(request):
    if request.param == "predictor":
        return shaken(config_of("flow", 0.05, afs=True))
    return AmedTable.constant("unipc3", (14.6, 3.3, 0.7, 0.0), [0.3, 1 / 3], 1.01, [0.9, 1.1])


def test_the_way_there_and_back(net, tmp_path):
    path = tmp_path / "folder" / "net.safetensors"
    save_amed(path, net, **FACTS)
    again = load_amed(path, FACTS["model_identity"])
    assert type(again) is type(net) and again.config == net.config
    assert again.facts == FACTS | {"fewstep_version": __version__}
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    for one, other in zip(again.choose(1, features()), net.choose(1, features()), strict=True):
        assert torch.equal(one, other)
    assert list(path.parent.iterdir()) == [path]


def test_saving_again_keeps_the_facts_and_replaces_the_file(net, tmp_path):
    path = tmp_path / "net.safetensors"
    save_amed(path, net, **FACTS)
    again = load_amed(path)
    save_amed(path, again, note="tried on 24 seeds")
    assert load_amed(path).facts == FACTS | {"note": "tried on 24 seeds", "fewstep_version": __version__}


def test_a_saved_file_samples_as_before(tmp_path):
    """Tables keep float64: the constants are the same numbers."""
    table = AmedTable.constant("dpmpp2", (14.6, 3.3, 0.7, 0.0), [0.3, 1 / 3], 1.005)
    save_amed(tmp_path / "table.safetensors", table)
    assert load_amed(tmp_path / "table.safetensors").solver_table() == table.solver_table()


def test_another_model_warns(net, tmp_path):
    path = tmp_path / "net.safetensors"
    save_amed(path, net, model="demo", model_identity="aaaa")
    with pytest.warns(UserWarning, match=r"trained for another model \('demo'\): its identity is 'aaaa', but this model's is bbbb"):
        load_amed(path, "bbbb")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_amed(path, "aaaa")
        load_amed(path)
        save_amed(path, AmedTable(AmedConfig("amed", (2.0, 1.0), "vp")))
        load_amed(path, "bbbb")


# What can be wrong ----------------------------------------------------------------------------------------------------


def parts(net):
    """Tensors and metadata of a whole file, to be damaged."""
    kind = "predictor" if isinstance(net, AmedPredictor) else "table"
    config = {**asdict(net.config), "stamps": list(net.config.stamps)}
    tensors = {name: value.detach().clone() for name, value in net.state_dict().items()}
    return tensors, {"format": "fewstep-amed", "version": VERSION, "kind": kind, "config": config, "facts": {}}


def written(path, tensors, record):
    text = record if isinstance(record, str) else json.dumps(record)
    save_file(tensors, path, metadata={"fewstep": text})
    return path


def test_an_undamaged_file_loads(net, tmp_path):
    load_amed(written(tmp_path / "net.safetensors", *parts(net)))


def config_with(**changes):
    return lambda tensors, record: record["config"].update(changes)


RECORDS = {
    "no metadata": (lambda tensors, record: record.clear(), "its format is None"),
    "another format": (lambda tensors, record: record.update(format="lora"), "its format is 'lora'"),
    "later version": (lambda tensors, record: record.update(version=VERSION + 1), "has version 2 .* Update FewStep"),
    "version as truth": (lambda tensors, record: record.update(version=True), "has version True"),
    "version as text": (lambda tensors, record: record.update(version="1"), "has version '1'"),
    "lacks kind": (lambda tensors, record: record.pop("kind"), "lacks kind"),
    "unknown name": (lambda tensors, record: record.update(pickle="!"), "unknown name 'pickle'"),
    "another kind": (lambda tensors, record: record.update(kind="lora"), "has the kind 'lora'; it must be one of predictor, table"),
    "kind no text": (lambda tensors, record: record.update(kind=["table"]), "has the kind"),
    "config no object": (lambda tensors, record: record.update(config=[1]), "has the config"),
    "config lacks": (lambda tensors, record: record["config"].pop("afs"), "config lacks afs"),
    "config adds": (config_with(order=3), "unknown name 'order'"),
    "form": (config_with(form="magic"), "config that is not allowed: form was 'magic'"),
    "family": (config_with(family="ve"), "family was 've'"),
    "scale": (config_with(scale_dir=7), "scale_dir was 7"),
    "scale as text": (config_with(scale_time="0.1"), "scale_time was '0.1'"),
    "afs": (config_with(afs=1), "afs was 1"),
    "stamps rise": (config_with(stamps=[1.0, 2.0, 3.0]), "strictly decreasing"),
    "stamps no list": (config_with(stamps="1, 2"), "must be a list of numbers"),
    "stamps as text": (config_with(stamps=["2", "1"]), "must be a list of numbers"),
    "stamps nested": (config_with(stamps=[[2.0, 1.0]]), "must be a list of numbers"),
    "stamps not finite": (config_with(stamps=[math.inf, 1.0, 0.5]), "finite"),
    "huge stamps": (config_with(stamps=[10**400, 1.0, 0.5]), "not allowed"),
    "stamps of no model": (config_with(stamps=[2e5, 1.0, 0.5]), "stamp 200000; stamps lie between 1e-07 and 100000"),
    "a stamp next to 0": (config_with(stamps=[14.6, 1.0, 1e-9, 0.0]), "stamp 1e-09; stamps lie between"),
    "too many stamps": (config_with(stamps=list(range(5000, 0, -1))), "at most 1000"),
    "other stamps": (config_with(stamps=[8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1]), "must be|load"),
    "facts no object": (lambda tensors, record: record.update(facts=[]), "has the facts"),
    "facts not finite": (lambda tensors, record: record.update(facts={"cfg": math.nan}), "'cfg' had the number nan"),
    "long fact": (lambda tensors, record: record.update(facts={"note": "x" * 501}), "501 characters"),
    "deep facts": (lambda tensors, record: record.update(facts={"a": [[[[[1]]]]]}), "levels of nesting"),
    "many facts": (lambda tensors, record: record.update(facts={"losses": [0] * 20_001}), "more than 20000 entries"),
}


@pytest.mark.parametrize("damage", RECORDS)
def test_damaged_metadata(damage, tmp_path):
    change, sentence = RECORDS[damage]
    tensors, record = parts(AmedTable(AmedConfig("amed", (14.6, 3.3, 0.7, 0.0), "vp")))
    change(tensors, record)
    with pytest.raises(ValueError, match=sentence):
        load_amed(written(tmp_path / "net.safetensors", tensors, record))


TENSORS = {
    "lacks one": (lambda tensors, name: tensors.pop(name), "lacks .*its tensors must be"),
    "adds one": (lambda tensors, name: tensors.update(extra=torch.ones(1)), r"has the unknown \['extra'\]"),
    "renamed": (lambda tensors, name: tensors.update(other=tensors.pop(name)), "lacks .* and has the unknown"),
    "another shape": (lambda tensors, name: tensors.update({name: tensors[name].new_zeros(3, 3)}), "of shape \\(3, 3\\); it must be"),
    "another dtype": (lambda tensors, name: tensors.update({name: tensors[name].half()}), "torch.float16"),
    "integers": (lambda tensors, name: tensors.update({name: tensors[name].long()}), "torch.int64"),
    "not a number": (lambda tensors, name: tensors[name].view(-1)[0].fill_(math.nan), "not finite"),
    "infinite": (lambda tensors, name: tensors[name].view(-1)[-1].fill_(math.inf), "not finite"),
}


@pytest.mark.parametrize("damage", TENSORS)
def test_damaged_tensors(net, damage, tmp_path):
    change, sentence = TENSORS[damage]
    tensors, record = parts(net)
    change(tensors, next(iter(tensors)))
    with pytest.raises(ValueError, match=sentence):
        load_amed(written(tmp_path / "net.safetensors", tensors, record))


def test_the_other_kinds_tensors(tmp_path):
    tensors, record = parts(AmedTable(config_of()))
    with pytest.raises(ValueError, match=r"lacks .*hidden\.weight"):
        load_amed(written(tmp_path / "net.safetensors", tensors, record | {"kind": "predictor"}))


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 64, b"\x80\x04\x95pickle", b"\x10\0\0\0\0\0\0\0{}"])
def test_other_files(content, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_amed(path)


def test_cut_files(net, tmp_path):
    path = tmp_path / "net.safetensors"
    save_amed(path, net)
    whole = path.read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a safetensors file"):
            load_amed(path)


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 5000])
def test_metadata_that_is_no_object(text, tmp_path):
    with pytest.raises(ValueError, match="metadata"):
        load_amed(written(tmp_path / "net.safetensors", {"r_logit": torch.zeros(1)}, text))


def test_a_file_without_our_metadata_and_a_huge_one(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no AMED predictor or table"):
        load_amed(path)
    save_file({"weight": torch.zeros(2**20 + 2**12)}, path)
    with pytest.raises(ValueError, match="less than 4 MB"):
        load_amed(path)


def test_texts_are_printable_whatever_a_file_holds(tmp_path):
    tensors, record = parts(AmedTable(config_of()))
    record["facts"] = {"model": "a\x1b[2Jb\u202ec", "note\x07": ["one\ntwo"]}
    facts = load_amed(written(tmp_path / "net.safetensors", tensors, record)).facts
    assert facts == {"model": "a?[2Jb?c", "note?": ["one two"]}


@pytest.mark.parametrize("net", [AmedTable, AmedPredictor])
def test_a_net_in_another_precision_is_written_as_others_are(net, tmp_path):
    moved = net(config_of()).half()
    save_amed(tmp_path / "net.safetensors", moved)
    for name, value in load_amed(tmp_path / "net.safetensors").state_dict().items():
        assert torch.equal(value, moved.state_dict()[name].to(value.dtype))


def test_no_file(tmp_path):
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(ValueError, match="There is no file"):
            load_amed(path)


def test_what_is_not_saved(net, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match="net was Linear"):
        save_amed(path, torch.nn.Linear(1, 1))
    for facts, sentence in (({"cfg": math.nan}, "finite"), ({"model": object()}, "type object"), ({"seed": 2**80}, "2\\^63")):
        with pytest.raises(ValueError, match=sentence):
            save_amed(path, net, **facts)
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        save_amed(path, net)
    assert not path.exists()
