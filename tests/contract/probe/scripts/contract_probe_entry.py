"""The probe's script and its HTTP routes."""

import base64
import io
from contextlib import ExitStack
from pathlib import Path

import gradio as gr
import numpy as np
from contract_probe import faults
from contract_probe.parts import unet_of, vae_of
from contract_probe.recorder import Recorder
from contract_probe.snapshot import differences, take_snapshot
from modules import paths, script_callbacks, scripts, shared


class ProbeState:
    """What lives from one request to the next. There is one, made when the host loads this file."""

    def __init__(self):
        self.baseline = {}
        self.recorder = None
        self.neighbours = []


STATE = ProbeState()


class ContractProbe(scripts.Script):
    """Each hook notes that it ran, and raises when the request asks it to."""

    def title(self):
        return "Contract probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(value="", label="Contract probe", visible=False)]

    def _pass(self, hook, args):
        asked = args[0] if args and isinstance(args[0], dict) else {}
        if STATE.recorder is not None and hook != "setup":
            STATE.recorder.hooks.append(hook)
        if asked.get("raise_in") == hook:
            raise faults.ProbeFault(f"probe: {hook}")
        return asked

    def setup(self, p, *args):
        STATE.recorder = None
        self._pass("setup", args)

    def before_process(self, p, *args):
        asked = args[0] if args and isinstance(args[0], dict) else {}
        STATE.recorder = Recorder() if asked.get("record") else None
        self._pass("before_process", args)

    def process(self, p, *args):
        asked = args[0] if args and isinstance(args[0], dict) else {}
        wrap_sample(p, asked, STATE.recorder)
        self._pass("process", args)

    def before_process_batch(self, p, *args, **kwargs):
        self._pass("before_process_batch", args)

    def after_extra_networks_activate(self, p, *args, **kwargs):
        self._pass("after_extra_networks_activate", args)

    def process_batch(self, p, *args, **kwargs):
        self._pass("process_batch", args)

    def process_before_every_sampling(self, p, *args, **kwargs):
        asked = self._pass("process_before_every_sampling", args)
        if asked.get("neighbour_during"):
            STATE.neighbours += faults.neighbour(unet_of(p.sd_model))
        # A clip is decoded before post_sample; a hires pass comes here twice and needs one fault.
        if asked.get("raise_in_vae") and not getattr(p, "is_hr_pass", False):
            faults.fail_decoder(vae_of(p.sd_model))

    def before_hr(self, p, *args):
        self._pass("before_hr", args)

    def post_sample(self, p, ps, *args):
        self._pass("post_sample", args)

    def postprocess_batch(self, p, *args, **kwargs):
        if STATE.recorder is not None:
            STATE.recorder.on_decoded(kwargs["images"])
        asked = self._pass("postprocess_batch", args)
        if asked.get("break_output"):
            faults.break_output_folder(Path(p.outpath_samples) / "motion")

    def postprocess_batch_list(self, p, pp, *args, **kwargs):
        self._pass("postprocess_batch_list", args)

    def postprocess_image(self, p, pp, *args):
        self._pass("postprocess_image", args)

    def postprocess_maskoverlay(self, p, ppmo, *args):
        self._pass("postprocess_maskoverlay", args)

    def postprocess_image_after_composite(self, p, pp, *args):
        self._pass("postprocess_image_after_composite", args)

    def postprocess(self, p, processed, *args):
        self._pass("postprocess", args)


def wrap_sample(p, asked, recorder):
    """Run this request's sampling inside what `asked` wants; as an extension would, on the instance."""
    original = p.sample

    def sample(*args, **kwargs):
        unet = unet_of(p.sd_model)
        with ExitStack() as stack:
            if recorder is not None:
                stack.enter_context(recorder.around_sampling(p))
            if asked.get("raise_in_unet_call"):
                stack.callback(faults.fail_call(unet, asked["raise_in_unet_call"]).remove)
            if asked.get("raise_in_window"):
                stack.callback(faults.fail_call(unet.middle_block, asked["raise_in_window"], "window").remove)
            if asked.get("slow_seconds"):
                stack.callback(faults.slow_down(unet, asked["slow_seconds"]).remove)
            if asked.get("slow_window_seconds"):
                stack.callback(faults.slow_down(unet.middle_block, asked["slow_window_seconds"]).remove)
            return original(*args, **kwargs)

    if recorder is not None or asked:
        p.sample = sample


def on_step(params):
    if STATE.recorder is not None:
        STATE.recorder.on_step(params)


def callback_that_may_raise(name):
    """A callback of the denoiser that raises when the running request asks for it."""

    def callback(params):
        p = getattr(getattr(params, "denoiser", None), "p", None)
        for script in getattr(getattr(p, "scripts", None), "alwayson_scripts", []):
            if isinstance(script, ContractProbe):
                script._pass(name, p.script_args[script.args_from : script.args_to])

    return callback


def add_routes(demo, app):
    """Called when the host's web application is up."""

    def ready():
        return {"model": shared.sd_model is not None}  # a host that has not loaded it yet does so now

    def baseline():
        STATE.baseline = take_snapshot(shared.sd_model)
        return {"watched": len(STATE.baseline)}

    def changes():
        return {"changes": differences(STATE.baseline, take_snapshot(shared.sd_model))}

    def record():
        return {} if STATE.recorder is None else STATE.recorder.summary()

    def decoded():
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(STATE.recorder.images))
        return {"npy": base64.b64encode(buffer.getvalue()).decode("ascii")}

    def neighbour_on():
        STATE.neighbours += faults.neighbour(unet_of(shared.sd_model))
        return {"hooks": len(STATE.neighbours)}

    def neighbour_off():
        while STATE.neighbours:
            STATE.neighbours.pop().remove()
        return {"hooks": 0}

    for route in (ready, changes, record, decoded):
        app.add_api_route(f"/contract/{route.__name__}", route, methods=["GET"])
    for route in (baseline, neighbour_on, neighbour_off):
        app.add_api_route(f"/contract/{route.__name__}", route, methods=["POST"])
    Path(paths.data_path, "contract-probe-ready").touch()


script_callbacks.on_app_started(add_routes)
script_callbacks.on_cfg_denoiser(on_step)
script_callbacks.on_cfg_denoiser(callback_that_may_raise("cfg_denoiser"))
