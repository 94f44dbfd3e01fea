"""Settings that this host knows, with A1111's names and defaults: `modules.shared_options`.

Two defaults differ on purpose: live previews are off (they would need another network), and noise comes from the CPU,
so that a seed gives the same picture on every machine.
"""

from __future__ import annotations

import os
from typing import Any

from motion.standalone.options import OptionInfo, options_section
from motion.standalone.paths import HostPaths

_SAVING: dict[str, tuple[Any, str]] = {
    "samples_save": (True, "Save every generated image"),
    "samples_format": ("png", "Image format"),
    "samples_filename_pattern": ("", "Image name pattern"),
    "save_images_add_number": (True, "Number the images"),
    "grid_save": (True, "Save every grid"),
    "grid_format": ("png", "Grid format"),
    "grid_extended_filename": (False, "Put seed and prompt into a grid's name"),
    "grid_only_if_multiple": (True, "No grid of a single image"),
    "grid_prevent_empty_spots": (False, "No empty places in a grid"),
    "n_rows": (-1, "Grid rows; -1 chooses, 0 is the batch size"),
    "grid_background_color": ("#ffffff", "Grid background"),
    "save_images_before_highres_fix": (False, "Also save the image before the hires pass"),
    "save_mask": (False, "Also save the inpainting mask"),
    "save_mask_composite": (False, "Also save the masked composite"),
    "jpeg_quality": (80, "JPEG and WebP quality"),
    "webp_lossless": (False, "Lossless WebP"),
    "save_incomplete_images": (False, "Save images of an interrupted job"),
    "save_to_dirs": (True, "Save images into a subfolder"),
    "grid_save_to_dirs": (True, "Save grids into a subfolder"),
    "directories_filename_pattern": ("[date]", "Subfolder name pattern"),
    "directories_max_prompt_words": (8, "Words of the prompt in [prompt_words]"),
    "save_txt": (False, "Write the infotext beside each image"),
    "enable_pnginfo": (True, "Write the infotext into images"),
}
_MODEL: dict[str, tuple[Any, str]] = {
    "sd_model_checkpoint": (None, "Stable Diffusion checkpoint"),
    "sd_checkpoint_hash": ("", "SHA256 of the checkpoint"),
    "CLIP_stop_at_last_layers": (1, "Clip skip"),
    "emphasis": ("Original", "Emphasis mode"),
    "comma_padding_backtrack": (20, "Prompt word wrap limit, tokens"),
    "randn_source": ("CPU", "Source of random numbers"),
    "persistent_cond_cache": (True, "Keep conditionings of the last prompt"),
}
_SDXL: dict[str, tuple[Any, str]] = {
    "sdxl_crop_top": (0, "Crop top coordinate"),
    "sdxl_crop_left": (0, "Crop left coordinate"),
    "sdxl_clip_l_skip": (False, "Clip skip in SDXL's first text encoder"),
}
_IMG2IMG: dict[str, tuple[Any, str]] = {
    "initial_noise_multiplier": (1.0, "Noise multiplier"),
    "img2img_extra_noise": (0.0, "Extra noise in img2img and hires pass"),
    "img2img_fix_steps": (False, "Do all steps, whatever the denoising strength"),
    "img2img_background_color": ("#ffffff", "Colour behind transparent pixels"),
    "overlay_inpaint": (True, "Put the original over what was not inpainted"),
    "return_mask": (False, "Show the mask in results"),
    "return_mask_composite": (False, "Show the masked composite in results"),
    "upscaler_for_img2img": (None, "Upscaler for img2img"),
    "hires_fix_use_firstpass_conds": (False, "Encode hires prompts with the first pass' networks"),
}
_SAMPLING: dict[str, tuple[Any, str]] = {
    "hide_samplers": ([], "Hidden samplers"),
    "eta_ddim": (0.0, "Eta for DDIM"),
    "eta_ancestral": (1.0, "Eta for ancestral samplers"),
    "s_churn": (0.0, "Sigma churn"),
    "s_tmin": (0.0, "Sigma tmin"),
    "s_tmax": (0.0, "Sigma tmax; 0 is infinite"),
    "s_noise": (1.0, "Sigma noise"),
    "s_min_uncond": (0.0, "Negative guidance minimum sigma"),
    "s_min_uncond_all": (False, "Negative guidance minimum sigma for all steps"),
    "skip_early_cond": (0.0, "Ignore the negative prompt in the first part of sampling"),
    "sigma_min": (0.0, "Sigma min; 0 is the model's"),
    "sigma_max": (0.0, "Sigma max; 0 is the model's"),
    "rho": (0.0, "Rho; 0 is the schedule's"),
    "eta_noise_seed_delta": (0, "Eta noise seed delta"),
    "enable_quantization": (False, "Round noise levels to the model's timesteps"),
    "always_discard_next_to_last_sigma": (False, "Discard the last but one sigma"),
    "sgm_noise_multiplier": (False, "SGM noise multiplier"),
    "sd_noise_schedule": ("Default", "Noise schedule for sampling"),
    "use_old_karras_scheduler_sigmas": (False, "Karras sigmas from 0.1 to 10"),
    "use_downcasted_alpha_bar": (False, "Round alphas_cumprod to float16"),
    "batch_cond_uncond": (True, "Cond and uncond in one call"),
    "pad_cond_uncond": (False, "Pad prompt and negative prompt to one length"),
    "pad_cond_uncond_v0": (False, "Pad prompt and negative prompt, old way"),
    "use_old_scheduling": (False, "Old prompt editing timelines"),
}
_PAGE: dict[str, tuple[Any, str]] = {
    "return_grid": (True, "Show the grid in the gallery"),
    "do_not_show_images": (False, "Show no images in the gallery"),
    "add_model_name_to_info": (True, "Model name in the infotext"),
    "add_model_hash_to_info": (True, "Model hash in the infotext"),
    "add_vae_name_to_info": (True, "VAE name in the infotext"),
    "add_vae_hash_to_info": (True, "VAE hash in the infotext"),
    "add_user_name_to_info": (False, "User name in the infotext"),
    "add_version_to_infotext": (True, "Program version in the infotext"),
    "disable_weights_auto_swap": (True, "Pasted infotext doesn't change the checkpoint"),
    "infotext_skip_pasting": ([], "Fields that are not pasted"),
    "send_seed": (True, "Send the seed to the other tab"),
    "send_size": (True, "Send the size to the other tab"),
    "show_progressbar": (True, "Show the progress bar"),
    "live_previews_enable": (False, "Live previews"),
    "show_progress_every_n_steps": (10, "Steps between previews"),
    "show_progress_type": ("Approx cheap", "Preview method"),
    "disabled_extensions": ([], "Extensions that are off"),
    "quicksettings_list": (["sd_model_checkpoint"], "Quicksettings"),
    "extra_networks_default_multiplier": (1.0, "Default weight of a LoRA"),
}
_INFOTEXT_KEYS = {
    "sd_model_checkpoint": "Model hash",
    "CLIP_stop_at_last_layers": "Clip skip",
    "emphasis": "Emphasis",
    "randn_source": "RNG",
    "initial_noise_multiplier": "Noise multiplier",
    "img2img_extra_noise": "Extra noise",
    "eta_ddim": "Eta DDIM",
    "eta_ancestral": "Eta",
    "s_churn": "Sigma churn",
    "s_tmin": "Sigma tmin",
    "s_tmax": "Sigma tmax",
    "s_noise": "Sigma noise",
    "s_min_uncond": "NGMS",
    "s_min_uncond_all": "NGMS all steps",
    "skip_early_cond": "Skip Early CFG",
    "sigma_min": "Schedule min sigma",
    "sigma_max": "Schedule max sigma",
    "rho": "Schedule rho",
    "eta_noise_seed_delta": "ENSD",
    "always_discard_next_to_last_sigma": "Discard penultimate sigma",
    "sgm_noise_multiplier": "SGM noise multiplier",
    "sd_noise_schedule": "Noise Schedule",
    "use_downcasted_alpha_bar": "Downcast alphas_cumprod",
    "pad_cond_uncond": "Pad conds",
    "pad_cond_uncond_v0": "Pad conds v0",
    "use_old_scheduling": "Old prompt editing timelines",
}


def _output_folders(paths: HostPaths) -> dict[str, tuple[Any, str]]:
    folders = {
        "outdir_txt2img_samples": ("txt2img-images", "Folder for txt2img images"),
        "outdir_img2img_samples": ("img2img-images", "Folder for img2img images"),
        "outdir_txt2img_grids": ("txt2img-grids", "Folder for txt2img grids"),
        "outdir_img2img_grids": ("img2img-grids", "Folder for img2img grids"),
    }
    named = {name: (os.path.join(paths.default_output_dir, sub), label) for name, (sub, label) in folders.items()}
    everywhere = {"outdir_samples": ("", "Folder for all images"), "outdir_grids": ("", "Folder for all grids")}
    return {
        **everywhere,
        **named,
        "outdir_save": (os.path.join(paths.data_path, "log", "images"), "Save button's folder"),
    }


def create_options(paths: HostPaths) -> dict[str, OptionInfo]:
    """Option name -> OptionInfo for a host in `paths`; new objects each time."""
    sections = (
        (("saving-images", "Saving images/grids", "saving"), _SAVING),
        (("saving-paths", "Paths for saving", "saving"), _output_folders(paths)),
        (("sd", "Stable Diffusion", "sd"), _MODEL),
        (("sdxl", "Stable Diffusion XL", "sd"), _SDXL),
        (("img2img", "img2img", "sd"), _IMG2IMG),
        (("sampler-params", "Sampler parameters", "sd"), _SAMPLING),
        (("ui", "User interface", "ui"), _PAGE),
    )
    options: dict[str, OptionInfo] = {}
    for section, table in sections:
        made = {
            name: OptionInfo(
                list(default) if isinstance(default, list) else default, label, infotext=_INFOTEXT_KEYS.get(name)
            )
            for name, (default, label) in table.items()
        }
        options.update(options_section(section, made))
    return options
