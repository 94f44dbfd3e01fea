"""Where hosts keep the parts of a loaded model."""

from __future__ import annotations


def unet_of(sd_model):
    """The UNet that is sampled."""
    return _objects(sd_model).unet.model.diffusion_model if _objects(sd_model) else sd_model.model.diffusion_model


def vae_of(sd_model):
    """The autoencoder."""
    return _objects(sd_model).vae.first_stage_model if _objects(sd_model) else sd_model.first_stage_model


def text_encoder_of(sd_model):
    """The text encoder, or what holds several."""
    return _objects(sd_model).clip.cond_stage_model if _objects(sd_model) else sd_model.cond_stage_model


def schedule_of(sd_model):
    """The module of Forge or reForge that turns sigmas into timesteps; None in A1111, which has no such thing."""
    model = _objects(sd_model).unet.model if _objects(sd_model) else None
    return getattr(model, "predictor", None) or getattr(model, "model_sampling", None)


def alphas_cumprod_of(sd_model):
    """The schedule that the UNet's timesteps come from."""
    schedule = schedule_of(sd_model)
    return sd_model.alphas_cumprod if schedule is None else 1 / (schedule.sigmas**2 + 1)


def patchers_of(sd_model):
    """Name -> patcher of the UNet, in each of the sets that Forge and reForge keep."""
    names = ("forge_objects_original", "forge_objects_after_applying_lora", "forge_objects")
    return {name: getattr(sd_model, name).unet for name in names if hasattr(sd_model, name)}


def _objects(sd_model):
    return getattr(sd_model, "forge_objects", None)
