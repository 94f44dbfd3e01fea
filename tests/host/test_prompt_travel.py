"""Travelling prompts through the script's hooks in the embedded host: which conds each frame is sampled with."""

import numpy as np
import pytest
import torch

from motion.errors import SettingsError
from motion.standalone import script_callbacks, shared
from tests.host.conftest import FRAMES

STILL = {"motion_scale": 0}  # frames don't see each other, so that each is what a picture with its prompt is
LONG = "a red dog in a garden " * 20


def pixels(processed):
    return np.stack([np.asarray(image, dtype=np.int16) for image in processed.images if not isinstance(image, str)])


@pytest.fixture
def steps(studio):
    """(step, conds, unconds) as the sampler gets them, of every denoiser step."""
    seen = []

    def keep(params):
        seen.append((params.denoiser.step, params.text_cond, params.text_uncond))

    script_callbacks.on_cfg_denoiser(keep)
    return seen


def encoded(model, text):
    return model.get_learned_conditioning([text])[0]


def test_frames_at_keyframes_are_pictures_of_their_prompts(studio):
    clip = studio.clip(STILL, prompt="a photo,\n0: red cat\n-1 : blue dog\nin a room")
    for frame, text in ((0, "red cat"), (-1, "blue dog")):
        batch = studio.still(batch_size=FRAMES, prompt=f"a photo, {text}, in a room")
        assert clip.images[frame].tobytes() == batch[frame]
    assert clip.images[0].tobytes() != studio.still(batch_size=FRAMES, prompt="a photo, blue dog, in a room")[0]


def test_frames_between_are_blends_of_the_conds(studio, steps):
    studio.clip({"prompt_interpolation": "lerp"}, prompt="0: red cat\n3: blue dog", negative_prompt="0: fog\n3: rain")
    for _, conds, unconds in steps:
        for rows, texts in ((conds, ("red cat", "blue dog")), (unconds, ("fog", "rain"))):
            first, last = (encoded(studio.model, text) for text in texts)
            for frame, share in enumerate((0, 1 / 3, 2 / 3, 1)):
                torch.testing.assert_close(rows[frame], torch.lerp(first, last, share))


def test_slerp_keeps_the_length_of_token_vectors(studio, steps):
    studio.clip(prompt="0: red cat\n3: blue dog")
    lengths = steps[0][1].norm(dim=-1)
    torch.testing.assert_close(lengths[1], lengths[0], rtol=0.02, atol=0)


def test_different_token_counts_are_padded_with_the_empty_prompt(studio, steps):
    studio.clip(STILL, prompt=f"0 hold: cat\n3: {LONG}", negative_prompt=f"0 hold: {LONG}\n3: fog")
    empty = encoded(studio.model, "")
    for rows, short, text in ((steps[0][1], 0, "cat"), (steps[0][2], 3, "fog")):
        assert rows.shape[1] == 2 * 77
        torch.testing.assert_close(rows[short], torch.cat([encoded(studio.model, text), empty]))
        torch.testing.assert_close(rows[3 - short], encoded(studio.model, LONG.strip()))


def test_prompt_editing_inside_keyframes(studio, steps):
    studio.clip({"prompt_interpolation": "lerp"}, steps=4, prompt="0: a [cat:fox:2]\n3: a [dog:bird:0.75]")
    texts = {0: ("a cat", "a dog"), 1: ("a cat", "a dog"), 2: ("a cat", "a dog"), 3: ("a fox", "a dog")}
    assert [step for step, *_ in steps] == [0, 1, 2, 3]
    for step, conds, _ in steps:
        first, last = (encoded(studio.model, text) for text in texts[step])
        torch.testing.assert_close(conds[1], torch.lerp(first, last, 1 / 3))


def test_the_hires_pass_travels_too(studio, steps):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.9}
    studio.clip(prompt="0 hold: red cat\n2: blue dog", **hires)
    first, last = (encoded(studio.model, text) for text in ("red cat", "blue dog"))
    assert {step[1].shape[0] for step in steps} == {FRAMES}
    for _, conds, _ in steps:
        torch.testing.assert_close(conds, torch.stack([first, first, last, last]))
    steps.clear()
    studio.clip(prompt="0 hold: red cat\n2: blue dog", hr_prompt="0: green fox", **hires)
    torch.testing.assert_close(steps[-1][1], torch.stack([encoded(studio.model, "green fox")] * FRAMES))


def test_every_clip_of_a_batch_count_travels(studio):
    both = pixels(studio.clip(prompt="0 hold: red cat\n2: blue dog", n_iter=2))
    alone = pixels(studio.clip(prompt="0 hold: red cat\n2: blue dog", seed=7 + FRAMES))
    assert (both[FRAMES:] == alone).all()


def test_a_closed_loop_travels_back(studio, steps):
    motion = {"prompt_interpolation": "lerp", "closed_loop": True}
    studio.clip(motion, prompt="0: red cat\n2: blue dog")
    first, last = (encoded(studio.model, text) for text in ("red cat", "blue dog"))
    torch.testing.assert_close(steps[0][1][3], torch.lerp(first, last, 0.5))


def test_guidance_of_each_frame(studio):
    clip = studio.clip(STILL, prompt="red cat\n0 hold cfg=3:\n2 cfg=12:", cfg_scale=6)
    for frame, cfg_scale in enumerate((3, 3, 12, 12)):
        still = studio.still(batch_size=FRAMES, prompt="red cat", cfg_scale=cfg_scale)[frame]
        difference = np.frombuffer(still, np.uint8).astype(int) - np.frombuffer(clip.images[frame].tobytes(), np.uint8)
        assert np.abs(difference).max() <= 1
    with pytest.raises(SettingsError, match="CFG scale other than 0, got 0"):
        studio.clip(prompt="red cat\n0 cfg=3:", cfg_scale=0)


def test_the_infotext_has_the_prompt_as_typed_and_restores_it(studio):
    from motion.standalone.infotext import parse_generation_parameters

    prompt, negative = "a photo,\n0 cfg=5: red cat\n2: blue dog\nin a room", "0: fog\n2: rain"
    clip = studio.clip(prompt=prompt, negative_prompt=negative)
    for infotext in clip.infotexts:
        parsed = parse_generation_parameters(infotext)
        assert (parsed["Prompt"], parsed["Negative prompt"]) == (prompt, negative)
    assert clip.prompt == prompt


def test_styles_go_around_all_keyframes(studio, steps):
    from motion.standalone.styles import PromptStyle

    shared.prompt_styles.styles["drawn"] = PromptStyle("drawn", "ink", "")
    shared.prompt_styles.styles["around"] = PromptStyle("around", "old {prompt} film", "")
    for style, texts in {"drawn": ("a, ink", "b, ink"), "around": ("old, a, film", "old, b, film")}.items():
        steps.clear()
        studio.clip(prompt="0 hold: a\n2: b", styles=[style])
        torch.testing.assert_close(steps[0][1][::3], torch.stack([encoded(studio.model, text) for text in texts]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "0: a\nb\n3: c"}, "Prompt line 'b': every line between"),
        ({"prompt": "0: a\n4: b"}, "'4: b': Frame 4 is outside the clip, whose frames are 0 to 3"),
        ({"negative_prompt": "0: a\n4: b"}, "'4: b': Frame 4"),
        ({"prompt": "0: a <lora:x:1>"}, "<lora:x:1> can't change from frame to frame"),
        ({"prompt": "0: a AND b"}, "without AND"),
        ({"negative_prompt": "0 cfg=3: a"}, "not into the negative prompt"),
        ({"prompt": "a", "hr_prompt": "9: b", "enable_hr": True, "hr_upscaler": "Latent"}, "'9: b': Frame 9"),
    ],
)
def test_bad_prompts_are_refused_before_sampling(studio, fields, message):
    with pytest.raises(SettingsError) as caught:
        studio.clip(**fields)
    assert message in str(caught.value)
    assert caught.value.status_code == 422


def test_ordinary_prompts_of_several_lines_stay_the_hosts(studio, steps):
    prompt = "a photo: cat,\n16:9, 12:30\n\n(2 cats:1.2): a portrait"
    clip = studio.clip(STILL, prompt=prompt)
    assert [image.tobytes() for image in clip.images] == studio.still(batch_size=FRAMES, prompt=prompt)
    steps.clear()
    studio.clip(prompt="\\3: the movie")
    torch.testing.assert_close(steps[0][1][0], encoded(studio.model, "3: the movie"))


def test_a_still_with_keyframe_lines_is_the_hosts_own(studio, steps):
    studio.still(prompt="0: red cat\n3: blue dog")
    torch.testing.assert_close(steps[0][1][0], encoded(studio.model, "0: red cat\n3: blue dog"))


class TextModel:
    """Encodes as SDXL does: tokens by the number of words, a pooled vector of text and size."""

    def get_learned_conditioning(self, texts):
        (text,) = texts
        drawn = torch.Generator().manual_seed(sum(map(ord, text)))
        chunks = 1 + len(text.split()) // 4
        tokens = torch.randn(1, chunks * 3, 8, generator=drawn)
        return {"crossattn": tokens, "vector": torch.cat([torch.randn(1, 6, generator=drawn), torch.ones(1, 4)], 1)}


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_sdxl_conds_travel_with_their_pooled_vectors(web_ui, method):
    from motion.host.prompt_travel import PromptTravel
    from motion.standalone.text import prompt_parser

    def original(function, prompts, steps, caches, *args):
        return function(model, prompts, steps)

    model, travel = TextModel(), PromptTravel(3, method, closed_loop=False)
    for negative in (False, True):
        encode = (
            prompt_parser.get_learned_conditioning if negative else prompt_parser.get_multicond_learned_conditioning
        )
        prompts = prompt_parser.SdConditioning(["0: a\n2: a b c d e"] * 3, is_negative_prompt=negative, width=64)
        conds = travel.conds(original, encode, prompts, 4, [[None, None]])
        if negative:
            rows = prompt_parser.reconstruct_cond_batch(conds, 0)
        else:
            rows = prompt_parser.reconstruct_multicond_batch(conds, 0)[1]
        short, long, empty = (model.get_learned_conditioning([text]) for text in ("a", "a b c d e", ""))
        padded = torch.cat([short["crossattn"], empty["crossattn"]], 1)
        assert rows["crossattn"].shape == (3, 6, 8)
        assert torch.equal(rows["crossattn"][0], padded[0])
        assert torch.equal(rows["crossattn"][2], long["crossattn"][0])
        assert torch.equal(rows["vector"][1, 6:], torch.ones(4))  # the size is no direction
        if method == "lerp":
            torch.testing.assert_close(rows["vector"][1], (short["vector"][0] + long["vector"][0]) / 2)
        else:
            first, last = short["vector"][0, :6], long["vector"][0, :6]
            angle = torch.nn.functional.cosine_similarity(first, last, dim=0).acos()
            torch.testing.assert_close(rows["vector"][1, :6], (first + last) * (angle / 2).sin() / angle.sin())
