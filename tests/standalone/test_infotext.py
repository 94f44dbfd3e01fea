"""Infotext: what is written is read back; A1111's texts are understood."""

from __future__ import annotations

import json
import string
from types import SimpleNamespace

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.standalone import infotext, namespace, processed, processing, script_callbacks, shared

A1111_TEXT = """a castle, <lora:stone:0.8>
on a hill
Negative prompt: blurry,
ugly
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, \
Model hash: 45dee52b, Hires prompt: "a \\"big\\" castle, at\\nnight: blue", Version: v1.10.1"""


@pytest.fixture(autouse=True, scope="module")
def host(tmp_path_factory):
    with namespace.installed(["--data-dir", str(tmp_path_factory.mktemp("data"))]) as state:
        yield state


def job(**fields):
    p = processing.StableDiffusionProcessingTxt2Img(sampler_name="Euler a", steps=20, **fields)
    p.sd_model_name, p.sd_model_hash, p.scheduler = "tiny", "0123456789", "Automatic"
    p.setup_prompts()
    p.all_seeds = [1000 + place for place in range(len(p.all_prompts))]
    p.all_subseeds = [7 + place for place in range(len(p.all_prompts))]
    return p


def written(p, index=0) -> str:
    return processed.create_infotext(p, p.all_prompts, p.all_seeds, p.all_subseeds, index=index)


def test_reads_a1111_text():
    found = infotext.parse_generation_parameters(A1111_TEXT)
    assert found["Prompt"] == "a castle, <lora:stone:0.8>\non a hill"
    assert found["Negative prompt"] == "blurry,\nugly"
    assert found["Hires prompt"] == 'a "big" castle, at\nnight: blue'
    expected = {"Steps": "20", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": "7.5"}
    assert {key: found[key] for key in expected} == expected
    assert (found["Size-1"], found["Size-2"]) == ("512", "768")
    assert (found["Clip skip"], found["RNG"], found["Hires sampler"]) == ("1", "GPU", "Use same sampler")


def test_text_without_parameters_is_a_prompt():
    found = infotext.parse_generation_parameters("a cat: red, small\nNegative prompt: dog")
    assert (found["Prompt"], found["Negative prompt"]) == ("a cat: red, small", "dog")


def test_skipped_fields_are_left_out(host):
    assert "Seed" not in infotext.parse_generation_parameters(A1111_TEXT, ["Seed"])
    host.opts.infotext_skip_pasting = ["Sampler"]
    try:
        assert "Sampler" not in infotext.parse_generation_parameters(A1111_TEXT)
    finally:
        host.opts.infotext_skip_pasting = []


def test_order_of_parameters_is_a1111s():
    p = job(prompt="cat", subseed_strength=0.25, seed_resize_from_w=64, seed_resize_from_h=64)
    p.extra_generation_params["Motion frames"] = 16
    keys = [pair.partition(":")[0] for pair in written(p).splitlines()[-1].split(", ")]
    assert keys == [
        "Steps",
        "Sampler",
        "Schedule type",
        "CFG scale",
        "Seed",
        "Size",
        "Model hash",
        "Model",
        "Variation seed",
        "Variation seed strength",
        "Seed resize from",
        "RNG",
        "Motion frames",
        "Version",
    ]


def test_values_may_be_lists_and_functions():
    p = job(prompt="cat", batch_size=3)
    p.extra_generation_params |= {
        "Per image": ["a", "b", "c"],
        "Computed": lambda index, prompt_text, **_: f"{prompt_text} {index}",
        "Absent": None,
        "Broken": lambda **_: 1 / 0,
    }
    found = infotext.parse_generation_parameters(written(p, 2))
    assert (found["Per image"], found["Computed"], found["Seed"]) == ("c", "cat 2", "1002")
    assert not {"Absent", "Broken"} & set(found)


plain_text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)
keys = st.text(string.ascii_letters + string.digits + " -/", min_size=2, max_size=12).map(
    lambda key: f"X{key}Y".strip()
)


@given(values=st.dictionaries(keys, plain_text, min_size=1, max_size=5))
def test_any_value_survives(values):
    p = job(prompt="cat")
    p.extra_generation_params.update(values)
    found = infotext.parse_generation_parameters(written(p))
    for key, value in values.items():
        if key == value:  # written as the key alone, as in A1111
            continue
        width, times, height = value.partition("x")
        if times and width.isdecimal() and height.isdecimal():
            assert (found[f"{key}-1"], found[f"{key}-2"]) == (width, height)
        else:
            assert found[key] == value


lines = st.text(string.ascii_letters + string.digits + "():<>.,[]|\"'\\-_ é", max_size=30).map(str.strip)


@given(prompt=st.lists(lines, max_size=3).map("\n".join), negative=st.lists(lines, max_size=3).map("\n".join))
def test_any_prompt_survives(prompt, negative):
    p = job(prompt=prompt, negative_prompt=negative)
    found = infotext.parse_generation_parameters(written(p))
    assert found["Prompt"] == (prompt.lstrip("\n") if prompt.strip() else "")  # a text doesn't begin with empty lines
    assert found["Negative prompt"] == negative
    assert found["Steps"] == "20"


def test_settings_from_infotext():
    assert infotext.create_override_settings_dict(["Clip skip: 2", "ENSD: 31337", "No such: 1"]) == {
        "CLIP_stop_at_last_layers": 2,
        "eta_noise_seed_delta": 31337,
    }
    found = infotext.get_override_settings({"Clip skip": "2", "ENSD": "0", "Model hash": "abc"})
    assert found == [("Clip skip", "CLIP_stop_at_last_layers", 2)]


def test_paste_fills_components_and_asks_callbacks():
    seen = []
    script_callbacks.on_infotext_pasted(lambda text, params: params.__setitem__("Seed", "5"), name="changes")
    script_callbacks.on_infotext_pasted(lambda text, params: seen.append(text))
    with gr.Blocks():
        fields = [
            infotext.PasteField(gr.Number(0, precision=0), "Seed"),
            infotext.PasteField(gr.Checkbox(True), lambda params: params["Sampler"] == "DDIM"),
            infotext.PasteField(gr.Textbox(""), "Prompt", api="prompt"),
            infotext.PasteField(gr.Textbox(""), "Not there"),
            infotext.PasteField(gr.Textbox(""), lambda params: 1 / 0),
        ]
    try:
        updates = infotext.paste(A1111_TEXT, fields)
    finally:
        script_callbacks.clear_callbacks()
    assert seen == [A1111_TEXT]
    assert [update.get("value", "untouched") for update in updates] == [
        5,
        False,
        "a castle, <lora:stone:0.8>\non a hill",
        "untouched",
        "untouched",
    ]
    assert (fields[2].label, fields[2].api, fields[1].function is not None) == ("Prompt", "prompt", True)


def test_an_empty_paste_is_the_last_job():
    with open(f"{shared.data_path}/params.txt", "w", encoding="utf8") as file:
        file.write(A1111_TEXT)
    update = infotext.paste("", [infotext.PasteField(SimpleNamespace(value=""), "Seed")])
    assert update["value"] == "965400086"


def test_processed_as_json():
    p = job(prompt="cat", batch_size=2)
    p.extra_generation_params["f"] = lambda **_: "x"
    p.comment("a remark")
    result = processing.Processed(p, ["one", "two"], seed=1000, info="text", infotexts=["text", "other"])
    told = json.loads(result.js())
    assert (told["seed"], told["all_seeds"], told["infotexts"]) == (1000, [1000, 1001], ["text", "other"])
    assert (told["sd_model_name"], told["clip_skip"], told["index_of_first_image"]) == ("tiny", 1, 0)
    assert result.comments == "a remark\n"
