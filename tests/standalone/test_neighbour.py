"""Extensions written for AUTOMATIC1111 load unmodified: scripts, callbacks, settings, flags, controls."""

from __future__ import annotations

import os
import sys

import gradio as gr
import pytest

from motion.standalone import namespace, page_tab, script_base, script_callbacks, script_runner, scripts, shared

ALWAYS_ON = """
import os
import gradio as gr
import modules.scripts as scripts
import modules.shared as sh
from modules import devices, errors, images, paths, processing, prompt_parser, rng, script_callbacks
from modules import sd_models, sd_samplers
from modules.generation_parameters_copypaste import parse_generation_parameters
from modules.infotext_utils import PasteField
from modules.paths import models_path
from modules.processing import Processed, StableDiffusionProcessing, StableDiffusionProcessingImg2Img
from modules.script_callbacks import CFGDenoiserParams, on_cfg_denoiser
from modules.shared import OptionInfo, cmd_opts, opts, state
from modules.ui import create_refresh_button
from modules.ui_components import FormColumn, FormRow, InputAccordion, ToolButton
import neighbour_package

BASE = scripts.basedir()
assert os.path.isfile(os.path.join(BASE, "neighbour_package.py"))
assert opts is sh.opts and state is sh.state


class Neighbour(scripts.Script):
    def __init__(self):
        super().__init__()
        self.generate_button = None
        self.on_after_component(self.remember, elem_id="txt2img_generate")

    def remember(self, on_component):
        self.generate_button = on_component.component

    def title(self):
        return "Neighbour's Effect"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        with InputAccordion(False, label="Neighbour", elem_id=self.elem_id("enable")) as enabled:
            with FormRow():
                place = self.elem_id("strength")
                strength = gr.Slider(minimum=0, maximum=2, step=0.1, value=0.5, label="Strength", elem_id=place)
                kind = gr.Dropdown(choices=["a", "b"], value="a", label="Kind", elem_id=self.elem_id("kind"))
                create_refresh_button(kind, lambda: None, lambda: {"choices": ["a", "b", "c"]}, self.elem_id("refresh"))
        self.infotext_fields = [PasteField(strength, "Neighbour strength"), (kind, "Neighbour kind")]
        self.paste_field_names = ["Neighbour strength"]
        return [enabled, strength, kind]

    def process(self, p, enabled, strength, kind):
        p.seen = (enabled, strength, kind)


class Chosen(scripts.Script):
    def title(self):
        return "Chosen script"

    def show(self, is_img2img):
        return not is_img2img

    def ui(self, is_img2img):
        return [gr.Textbox("word", label="Word")]

    def run(self, p, word):
        return f"ran with {word}"


def on_ui_settings():
    level = OptionInfo(3, "Level", gr.Slider, {"minimum": 0, "maximum": 9}, section=("neighbour", "Neighbour"))
    opts.add_option("neighbour_level", level.info("more"))


script_callbacks.on_ui_settings(on_ui_settings)
script_callbacks.on_app_started(lambda demo, app: app.append(demo), name="started")
"""
PRELOAD = """
def preload(parser):
    parser.add_argument("--neighbour-speed", type=int, default=5, help="speed")
"""


def write_extension(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", os.sep)
        path = path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    return folder


@pytest.fixture
def host(tmp_path):
    data = tmp_path / "data"
    write_extension(
        data / "extensions" / "neighbour",
        scripts__main=ALWAYS_ON,
        preload=PRELOAD,
        neighbour_package="NAME = 'neighbour'",
    )
    write_extension(data / "extensions" / "a_broken_one", scripts__main="import no_such_package_at_all")
    arguments = ["--data-dir", str(data), "--neighbour-speed", "7"]
    with namespace.installed(arguments) as state:
        scripts.load_scripts()
        yield state
    sys.modules.pop("neighbour_package", None)


def test_it_loads_beside_a_broken_one(host):
    names = [entry.script_class.__name__ for entry in host.script_classes]
    assert names == ["Neighbour", "Chosen"]
    assert [os.path.basename(extension.path) for extension in host.extensions] == ["a_broken_one", "neighbour"]
    assert host.exception_records[-1]["exception"] == "No module named 'no_such_package_at_all'"


def test_its_folder_is_on_the_path_only_while_it_loads(host):
    folder = str(host.extensions[1].path)
    assert folder not in sys.path
    assert scripts.basedir() == host.paths.data_path
    assert folder == host.loaded_scripts[os.path.join(folder, "scripts", "main.py")].BASE


def test_its_flag_is_parsed(host):
    assert shared.cmd_opts.neighbour_speed == 7


def test_its_setting_is_added(host):
    script_callbacks.ui_settings_callback()
    assert shared.opts.neighbour_level == 3
    assert shared.opts.data_labels["neighbour_level"].comment_after == "<span class='info'>(more)</span>"


def test_its_callbacks_are_named_after_it(host):
    entries = host.callback_map["callbacks_app_started"]
    assert [entry.name for entry in entries] == ["neighbour/main.py/app_started/started"]
    app = []
    script_callbacks.app_started_callback("demo", app)
    assert app == ["demo"]


def test_controls_and_arguments(host):
    txt2img, img2img = scripts.build_runners()
    neighbour, chosen = txt2img.scripts
    assert (neighbour.args_from, neighbour.args_to, chosen.args_from, chosen.args_to) == (1, 4, 4, 5)
    assert scripts.default_arguments(txt2img) == [0, False, 0.5, "a", "word"]
    assert [script.title() for script in img2img.scripts] == ["Neighbour's Effect"]
    assert neighbour.elem_id("x") == "script_txt2img_neighbours_effect_x"
    assert chosen.elem_id("x") == "script_chosen_script_x"
    assert txt2img.script("NEIGHBOUR'S effect") is neighbour
    assert [field[1] for field in txt2img.infotext_fields[:2]] == ["Neighbour strength", "Neighbour kind"]
    assert txt2img.paste_field_names == ["Neighbour strength"]
    info = neighbour.api_info
    assert (info.name, info.is_alwayson, [arg.label for arg in info.args][1:]) == (
        "neighbour's effect",
        True,
        ["Strength", "Kind"],
    )
    assert (info.args[1].minimum, info.args[1].maximum, info.args[2].choices) == (0, 2, ["a", "b"])


def test_arguments_reach_their_script(host):
    txt2img, _ = scripts.build_runners()
    neighbour = txt2img.alwayson_scripts[0]
    arguments = scripts.default_arguments(txt2img)
    changed = txt2img.set_named_arg(tuple(arguments), neighbour.name, neighbour.elem_id("strength"), 1.5)

    class Job:
        script_args = changed

    txt2img.process(Job)
    assert Job.seen == (False, 1.5, "a")
    assert txt2img.run(Job, *arguments) is None
    assert txt2img.run(Job, 1, *arguments[1:]) == "ran with word"
    with pytest.raises(RuntimeError, match="script nobody not found"):
        txt2img.set_named_arg(arguments, "nobody", "x", 1)
    with pytest.raises(RuntimeError, match="arg_elem_id nothing not found"):
        txt2img.set_named_arg(arguments, neighbour.name, "nothing", 1)


def test_components_of_the_page_are_announced(host):
    seen = []
    script_callbacks.on_after_component(lambda component, **kwargs: seen.append(kwargs["elem_id"]))
    with gr.Blocks():
        page_tab.GenerationTab("txt2img", scripts.scripts_txt2img).build()
    assert scripts.scripts_txt2img.scripts[0].generate_button.value == "Generate"
    assert {"txt2img_prompt", "txt2img_generate", "txt2img_sampling", "txt2img_steps"} <= set(seen)


def test_loading_again_forgets_callbacks(host):
    scripts.load_scripts()
    assert len(host.callback_map["callbacks_ui_settings"]) == 1
    assert len(host.script_classes) == 2


def test_files_can_be_read_again(host):
    txt2img, _ = scripts.build_runners()
    before = list(txt2img.scripts)
    txt2img.reload_sources({})
    assert [type(script).__name__ for script in txt2img.scripts] == ["Neighbour", "Chosen"]
    assert all(new is not old for new, old in zip(txt2img.scripts, before, strict=True))
    assert [script.args_from for script in txt2img.scripts] == [1, 4]


def test_disabled_extensions_stay_out(tmp_path):
    for name in ("on", "off"):
        write_extension(
            tmp_path / "extensions" / name, scripts__main="from modules import scripts\nclass S(scripts.Script): pass"
        )
    (tmp_path / "config.json").write_text('{"disabled_extensions": ["off"]}')
    with namespace.installed(["--data-dir", str(tmp_path)]) as host:
        scripts.load_scripts()
        assert [os.path.basename(entry.basedir) for entry in host.script_classes] == ["on"]
    with namespace.installed(["--data-dir", str(tmp_path), "--disable-all-extensions"]) as host:
        assert host.extensions == []


def test_order_follows_registration_and_the_users_wish(tmp_path):
    class First(script_base.Script):
        def process(self, p, *args):
            calls.append("first")

    class Second(script_base.Script):
        def process(self, p, *args):
            calls.append("second")

    class Silent(script_base.Script):
        pass

    class Job:
        script_args = ()

    calls = []
    with namespace.installed(["--data-dir", str(tmp_path)]):
        runner = script_runner.ScriptRunner()
        for script in (Silent(), First(), Second()):
            script.filename = "file.py"
            runner.alwayson_scripts.append(script)
        runner.process(Job)
        shared.opts.add_option(
            "prioritized_callbacks_script_process", shared.OptionInfo(["base/file.py/script_process/Second"])
        )
        runner.process(Job)
    assert calls == ["first", "second", "second", "first"]


def test_unknown_flags_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        namespace.install(["--no-such-flag"])
    assert "unrecognized arguments: --no-such-flag" in capsys.readouterr().err
    assert "modules" not in sys.modules
