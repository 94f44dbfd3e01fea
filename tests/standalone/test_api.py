from __future__ import annotations

import base64
import io
import json
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from PIL import Image

from motion.models.precision import choose_precision
from motion.standalone import devices, namespace, server, shared
from motion.standalone.pipeline import EXTENSION_FOLDER
from tests.demo_host import made_files

SMALL = {"prompt": "a lighthouse", "steps": 2, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return made_files(tmp_path_factory)


@pytest.fixture(scope="module")
def client(files):
    folder, _, _ = files
    with namespace.installed(["--data-dir", str(folder)], [EXTENSION_FOLDER]):
        devices.configure(choose_precision("fp32", device="cpu"))
        with serving(server.create_app()) as address, httpx.Client(base_url=address, timeout=120) as client:
            yield client


@contextmanager
def serving(app):
    """The address of `app` on a free port, for the length of a `with` block."""
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    worker = threading.Thread(target=running.run)
    worker.start()
    try:
        while not running.started:
            assert worker.is_alive()
            time.sleep(0.05)
        port = running.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        worker.join(30)


@pytest.fixture
def module_name(files):
    return files[2].name


def motion(module_name, **fields):
    arguments = {"enabled": True, "motion_module": module_name, "num_frames": 3, "formats": ["MP4", "GIF"], **fields}
    return {"alwayson_scripts": {"Motion": {"args": [arguments]}}}


def decoded(text):
    return base64.b64decode(text)


def test_txt2img_answers_in_a1111s_shape(client):
    answer = client.post("/sdapi/v1/txt2img", json=SMALL).json()
    assert set(answer) == {"images", "parameters", "info"}
    assert answer["parameters"]["prompt"] == "a lighthouse"
    info = json.loads(answer["info"])
    assert (info["seed"], info["all_seeds"], info["sampler_name"]) == (5, [5], "Euler")
    (image,) = answer["images"]
    with Image.open(io.BytesIO(decoded(image))) as picture:
        assert picture.size == (64, 64)
        assert "Seed: 5" in picture.info["parameters"]


def test_a_clip_comes_as_files(client, module_name):
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, **motion(module_name)}).json()
    kinds = [decoded(text)[:8] for text in answer["images"]]
    assert kinds[0][4:] == b"ftyp"
    assert kinds[1][:4] == b"GIF8"
    assert len(kinds) == 2


def test_send_images_false_sends_none(client):
    assert client.post("/sdapi/v1/txt2img", json={**SMALL, "send_images": False}).json()["images"] == []


def test_img2img(client, module_name):
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    request = {**SMALL, **motion(module_name), "init_images": [picture], "denoising_strength": 0.5}
    answer = client.post("/sdapi/v1/img2img", json=request)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 2
    assert answer.json()["parameters"]["init_images"] is None


REFUSED = [
    ({"alwayson_scripts": {"Nothing": {"args": []}}}, 422, "Script 'Nothing' not found"),
    ({"alwayson_scripts": {"Motion": {"args": 3}}}, 422, "must be a list"),
    ({"alwayson_scripts": {"Motion": {"args": [0] * 99}}}, 422, "got 99 of them"),
    ({"script_name": "Nothing"}, 422, "Script 'Nothing' not found"),
    ({"sampler_name": "Nothing"}, 422, "Sampler 'Nothing' is unknown"),
    ({"override_settings": {"nothing": 1}}, 422, "unknown setting 'nothing'"),
    ({"tiling": True}, 422, "no tiling"),
    ({"infotext": "Steps: 3"}, 422, "`infotext` is not supported"),
    (motion("nowhere"), 422, "there is no motion module of this name"),
    (motion("", num_frames=0), 422, "num_frames"),
    (motion("", frames=4), 422, "Unknown field `frames`"),
]


@pytest.mark.parametrize(("fields", "status", "message"), REFUSED)
def test_refusals(client, fields, status, message):
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, **fields})
    assert (answer.status_code, set(answer.json())) == (status, {"error", "detail", "body", "errors"})
    assert message in answer.json()["detail"]


@pytest.mark.parametrize("fields", [{"steps": "many"}, {"width": 65}, {"steps": 0}, {"n_iter": 0}])
def test_fields_of_the_wrong_kind_are_422(client, fields):
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, **fields})
    assert answer.status_code == 422
    assert next(iter(fields)) in answer.text


def test_img2img_needs_a_picture(client):
    assert client.post("/sdapi/v1/img2img", json=SMALL).status_code == 404
    answer = client.post("/sdapi/v1/img2img", json={**SMALL, "init_images": ["bm8gcGljdHVyZQ=="]})
    assert (answer.status_code, answer.json()["detail"]) == (422, "Invalid encoded image")


def test_lists(client, files):
    samplers = {entry["name"] for entry in client.get("/sdapi/v1/samplers").json()}
    assert samplers >= {"Euler", "Euler a", "DPM++ 2M", "DDIM", "LCM"}
    assert {entry["name"] for entry in client.get("/sdapi/v1/schedulers").json()} >= {"automatic", "karras"}
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert model["filename"] == str(files[1])
    assert set(model) == {"title", "model_name", "hash", "sha256", "filename", "config"}
    info = client.get("/sdapi/v1/script-info").json()
    assert [(entry["name"], entry["is_img2img"]) for entry in info] == [("motion", False), ("motion", True)]
    assert client.get("/sdapi/v1/scripts").json() == {"txt2img": ["motion"], "img2img": ["motion"]}


def test_options(client):
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1
    assert client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2}).status_code == 200
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})
    assert client.post("/sdapi/v1/options", json={"nothing": 1}).status_code == 422
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "nothing"}).status_code == 422


def test_progress_and_interrupt(client, module_name):
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0
    answers = []
    request = {**SMALL, **motion(module_name), "steps": 150}
    worker = threading.Thread(target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=request)))
    worker.start()
    deadline = time.monotonic() + 60
    while (state := client.get("/sdapi/v1/progress").json())["state"]["sampling_step"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert 0 < state["progress"] < 1
    assert state["eta_relative"] > 0
    assert state["state"]["job"] == "scripts_txt2img"
    assert client.post("/sdapi/v1/interrupt").json() == {}
    worker.join(60)
    assert answers[0].status_code == 200
    assert client.get("/sdapi/v1/progress").json()["state"]["job"] == ""


def test_two_requests_wait_for_each_other(client):
    alone = client.post("/sdapi/v1/txt2img", json=SMALL).json()["images"]
    answers = []
    workers = [
        threading.Thread(target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=SMALL).json()))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [answer["images"] for answer in answers] == [alone] * 3


def test_the_page_names_no_other_host_to_load_from(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "Content-Security-Policy" in answer.headers
    assert "fonts.googleapis" not in answer.text
    assert "cdnjs" not in answer.text
    assert 'id="root"' in answer.text or "gradio_config" in answer.text


def test_the_page_serves_the_outputs_alone(client, files, tmp_path):
    folder, checkpoint, _ = files
    kept = folder / "outputs" / "txt2img-images" / "kept.txt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("an output")
    later = tmp_path / "later.txt"
    later.write_text("another")
    assert client.get(f"/file={kept}").text == "an output"
    assert [client.get(f"/file={path}").status_code for path in (checkpoint, later)] == [403, 403]
    client.post("/sdapi/v1/options", json={"outdir_img2img_samples": str(tmp_path)})
    try:
        assert client.get(f"/file={later}").text == "another"
    finally:
        shared.opts.data["outdir_img2img_samples"] = str(folder / "outputs" / "img2img-images")
        shared.opts.save(shared.cmd_opts.ui_settings_file)


def test_one_folder_for_all_images_comes_first(client, tmp_path):
    client.post("/sdapi/v1/options", json={"outdir_samples": str(tmp_path)})
    try:
        client.post("/sdapi/v1/txt2img", json={**SMALL, "save_images": True, "send_images": False})
    finally:
        client.post("/sdapi/v1/options", json={"outdir_samples": ""})
    assert list(tmp_path.rglob("*.png"))


def test_other_sites_are_refused(client):
    assert client.get("/sdapi/v1/options", headers={"Host": "evil.example"}).status_code == 403
    for path in ("/", "/sdapi/v1/interrupt"):
        answer = client.post(path, headers={"Origin": "http://evil.example"})
        assert (answer.status_code, answer.text.count("\n")) == (403, 1)
    own = str(client.base_url).rstrip("/")
    assert client.post("/sdapi/v1/interrupt", headers={"Origin": own}).status_code == 200
