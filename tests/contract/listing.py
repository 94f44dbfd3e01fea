"""What a host says about itself and about the extension."""

from __future__ import annotations

from motion.settings import field_specs
from tests.contract.server import CHECKPOINT

SAMPLERS = {"Euler", "Euler a", "DPM++ 2M", "DDIM", "LCM"}


class ListingContract:
    def test_the_script_is_listed_for_both_tabs_with_its_arguments(self, host):
        ours = [script for script in host.get("/sdapi/v1/script-info") if script["name"] == "motion"]
        assert sorted(script["is_img2img"] for script in ours) == [False, True]
        labels = [spec.label for spec in field_specs().values()]
        for script in ours:
            assert script["is_alwayson"]
            assert [argument["label"] for argument in script["args"]] == labels

    def test_the_drop_down_offers_the_modules_of_the_models_folder(self, host):
        script = next(script for script in host.get("/sdapi/v1/script-info") if script["name"] == "motion")
        choices = next(argument["choices"] for argument in script["args"] if argument["label"] == "Motion module")
        shown = {choice[0] if isinstance(choice, list) else choice for choice in choices}  # Gradio 4 has pairs
        assert {"v1.safetensors", "v2.safetensors", "v3.safetensors"} <= shown

    def test_samplers_and_checkpoints_answer(self, host):
        assert {sampler["name"] for sampler in host.get("/sdapi/v1/samplers")} >= SAMPLERS
        assert CHECKPOINT in [model["model_name"] for model in host.get("/sdapi/v1/sd-models")]
        assert host.get("/sdapi/v1/options")["sd_model_checkpoint"].startswith(CHECKPOINT)
