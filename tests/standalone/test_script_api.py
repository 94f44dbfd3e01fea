"""Names and parameters of the API that extensions use are those of AUTOMATIC1111 1.10.1, written out."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from motion.standalone import namespace

SCRIPT = {
    "title": "(self)",
    "ui": "(self, is_img2img)",
    "show": "(self, is_img2img)",
    "run": "(self, p, *args)",
    "setup": "(self, p, *args)",
    "before_process": "(self, p, *args)",
    "process": "(self, p, *args)",
    "before_process_batch": "(self, p, *args, **kwargs)",
    "after_extra_networks_activate": "(self, p, *args, **kwargs)",
    "process_before_every_sampling": "(self, p, *args, **kwargs)",
    "process_batch": "(self, p, *args, **kwargs)",
    "postprocess_batch": "(self, p, *args, **kwargs)",
    "postprocess_batch_list": "(self, p, pp, *args, **kwargs)",
    "on_mask_blend": "(self, p, mba, *args)",
    "post_sample": "(self, p, ps, *args)",
    "postprocess_image": "(self, p, pp, *args)",
    "postprocess_maskoverlay": "(self, p, ppmo, *args)",
    "postprocess_image_after_composite": "(self, p, pp, *args)",
    "postprocess": "(self, p, processed, *args)",
    "before_component": "(self, component, **kwargs)",
    "after_component": "(self, component, **kwargs)",
    "on_before_component": "(self, callback, *, elem_id)",
    "on_after_component": "(self, callback, *, elem_id)",
    "describe": "(self)",
    "elem_id": "(self, item_id)",
    "before_hr": "(self, p, *args)",
}
RUNNER = {
    "initialize_scripts": "(self, is_img2img)",
    "apply_on_before_component_callbacks": "(self)",
    "create_script_ui": "(self, script)",
    "create_script_ui_inner": "(self, script)",
    "setup_ui_for_section": "(self, section, scriptlist=None)",
    "prepare_ui": "(self)",
    "setup_ui": "(self)",
    "run": "(self, p, *args)",
    "list_scripts_for_method": "(self, method_name)",
    "create_ordered_callbacks_list": "(self, method_name, *, enable_user_sort=True)",
    "ordered_callbacks": "(self, method_name, *, enable_user_sort=True)",
    "ordered_scripts": "(self, method_name)",
    "before_process": "(self, p)",
    "process": "(self, p)",
    "process_before_every_sampling": "(self, p, **kwargs)",
    "before_process_batch": "(self, p, **kwargs)",
    "after_extra_networks_activate": "(self, p, **kwargs)",
    "process_batch": "(self, p, **kwargs)",
    "postprocess": "(self, p, processed)",
    "postprocess_batch": "(self, p, images, **kwargs)",
    "postprocess_batch_list": "(self, p, pp, **kwargs)",
    "post_sample": "(self, p, ps)",
    "on_mask_blend": "(self, p, mba)",
    "postprocess_image": "(self, p, pp)",
    "postprocess_maskoverlay": "(self, p, ppmo)",
    "postprocess_image_after_composite": "(self, p, pp)",
    "before_component": "(self, component, **kwargs)",
    "after_component": "(self, component, **kwargs)",
    "script": "(self, title)",
    "reload_sources": "(self, cache)",
    "before_hr": "(self, p)",
    "setup_scrips": "(self, p, *, is_ui=True)",
    "set_named_arg": "(self, args, script_name, arg_elem_id, value, fuzzy=False)",
}
CALLBACKS = {
    "add_callback": "(callbacks, fun, *, name=None, category='unknown', filename=None)",
    "sort_callbacks": "(category, unordered_callbacks, *, enable_user_sort=True)",
    "ordered_callbacks": "(category, unordered_callbacks=None, *, enable_user_sort=True)",
    "enumerate_callbacks": "()",
    "clear_callbacks": "()",
    "remove_current_script_callbacks": "()",
    "remove_callbacks_for_function": "(callback_func)",
    "app_started_callback": "(demo, app)",
    "app_reload_callback": "()",
    "model_loaded_callback": "(sd_model)",
    "ui_tabs_callback": "()",
    "ui_train_tabs_callback": "(params)",
    "ui_settings_callback": "()",
    "before_image_saved_callback": "(params)",
    "image_saved_callback": "(params)",
    "extra_noise_callback": "(params)",
    "cfg_denoiser_callback": "(params)",
    "cfg_denoised_callback": "(params)",
    "cfg_after_cfg_callback": "(params)",
    "before_component_callback": "(component, **kwargs)",
    "after_component_callback": "(component, **kwargs)",
    "image_grid_callback": "(params)",
    "infotext_pasted_callback": "(infotext, params)",
    "script_unloaded_callback": "()",
    "before_ui_callback": "()",
    "list_optimizers_callback": "()",
    "list_unets_callback": "()",
    "before_token_counter_callback": "(params)",
}
REGISTRATIONS = (
    "app_started before_reload model_loaded ui_tabs ui_train_tabs ui_settings before_image_saved image_saved "
    "extra_noise cfg_denoiser cfg_denoised cfg_after_cfg before_component after_component image_grid infotext_pasted "
    "script_unloaded before_ui list_optimizers list_unets before_token_counter"
)
PARAMETER_OBJECTS = {
    "script_callbacks.ImageSaveParams": "image p filename pnginfo",
    "script_callbacks.ExtraNoiseParams": "noise x xi",
    "script_callbacks.CFGDenoiserParams": (
        "x image_cond sigma sampling_step total_sampling_steps text_cond text_uncond denoiser"
    ),
    "script_callbacks.CFGDenoisedParams": "x sampling_step total_sampling_steps inner_model",
    "script_callbacks.AfterCFGCallbackParams": "x sampling_step total_sampling_steps",
    "script_callbacks.ImageGridLoopParams": "imgs cols rows",
    "script_callbacks.BeforeTokenCounterParams": "prompt steps styles is_positive",
    "scripts.MaskBlendArgs": "current_latent nmask init_latent mask blended_latent denoiser sigma",
    "scripts.PostSampleArgs": "samples",
    "scripts.PostprocessImageArgs": "image",
    "scripts.PostProcessMaskOverlayArgs": "index mask_for_overlay overlay_image",
    "scripts.PostprocessBatchListArgs": "images",
    "scripts.OnComponent": "component",
}
JOB_FIELDS = (
    "sd_model outpath_samples outpath_grids prompt prompt_for_display negative_prompt styles seed subseed "
    "subseed_strength seed_resize_from_h seed_resize_from_w seed_enable_extras sampler_name scheduler "
    "batch_size n_iter steps cfg_scale width height restore_faces tiling do_not_save_samples "
    "do_not_save_grid extra_generation_params overlay_images eta do_not_reload_embeddings "
    "denoising_strength ddim_discretize s_min_uncond s_churn s_tmax s_tmin s_noise override_settings "
    "override_settings_restore_afterwards sampler_index refiner_checkpoint refiner_switch_at "
    "disable_extra_networks firstpass_image"
)
TXT2IMG_FIELDS = (
    "enable_hr firstphase_width firstphase_height hr_scale hr_upscaler hr_second_pass_steps hr_resize_x "
    "hr_resize_y hr_checkpoint_name hr_sampler_name hr_scheduler hr_prompt hr_negative_prompt "
    "force_task_id"
)
IMG2IMG_FIELDS = (
    "init_images resize_mode image_cfg_scale mask mask_blur_x mask_blur_y mask_blur mask_round "
    "inpainting_fill inpaint_full_res inpaint_full_res_padding inpainting_mask_invert "
    "initial_noise_multiplier latent_mask force_task_id"
)


@pytest.fixture
def modules(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]):
        import modules

        yield modules


def shown(function) -> str:
    """Parameters without annotations."""
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(bare))


def signatures(owner, names) -> dict[str, str]:
    return {name: shown(getattr(owner, name)) for name in names}


def test_script_has_a1111_methods(modules):
    assert signatures(modules.scripts.Script, SCRIPT) == SCRIPT


def test_script_runner_has_a1111_methods(modules):
    assert signatures(modules.scripts.ScriptRunner, RUNNER) == RUNNER


def test_script_callbacks_has_a1111_functions(modules):
    expected = {**CALLBACKS, **{f"on_{name}": "(callback, *, name=None)" for name in REGISTRATIONS.split()}}
    assert signatures(modules.script_callbacks, expected) == expected


@pytest.mark.parametrize("path", PARAMETER_OBJECTS)
def test_callback_arguments_have_a1111_fields(modules, path):
    module, name = path.split(".")
    made = getattr(getattr(modules, module), name)
    assert list(inspect.signature(made).parameters) == PARAMETER_OBJECTS[path].split()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("StableDiffusionProcessing", ""),
        ("StableDiffusionProcessingTxt2Img", TXT2IMG_FIELDS),
        ("StableDiffusionProcessingImg2Img", IMG2IMG_FIELDS),
    ],
)
def test_jobs_take_a1111_fields_in_order(modules, name, own):
    made = getattr(modules.processing, name)
    taken = [field.name for field in dataclasses.fields(made) if field.init]
    assert taken == [*JOB_FIELDS.split(), *own.split()]
    assert list(inspect.signature(made).parameters) == taken


def test_defaults_of_a_job(modules):
    p = modules.processing.StableDiffusionProcessingTxt2Img()
    assert (p.steps, p.cfg_scale, p.width, p.height, p.seed, p.batch_size, p.n_iter) == (50, 7.0, 512, 512, -1, 1, 1)
    assert (p.denoising_strength, p.hr_scale, p.hr_upscaler, p.enable_hr) == (0.75, 2.0, None, False)
    i = modules.processing.StableDiffusionProcessingImg2Img(mask_blur=9)
    assert (i.mask_blur_x, i.mask_blur_y, i.mask_blur, i.inpaint_full_res, i.resize_mode) == (9, 9, 9, True, 0)


def test_every_alias_is_the_real_module(modules):
    import sys

    for name, file in namespace.ALIASES.items():
        assert sys.modules[name] is sys.modules[f"motion.standalone.{file}"]
        parent, _, child = name.rpartition(".")
        assert getattr(sys.modules[parent], child) is sys.modules[name]


def test_nothing_is_left_after_uninstalling(tmp_path):
    import sys

    with namespace.installed(["--data-dir", str(tmp_path)]) as outer, namespace.installed() as inner:
        assert inner is outer
    assert not [name for name in sys.modules if name.split(".")[0] == "modules"]
    from motion.standalone import shared

    with pytest.raises(AttributeError, match="only while a host runs"):
        _ = shared.opts
