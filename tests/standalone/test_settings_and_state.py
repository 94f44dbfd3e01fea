"""shared.opts, shared.state and prompt styles behave as A1111's."""

from __future__ import annotations

import json
import threading

import pytest

from motion.standalone import namespace, options, shared


@pytest.fixture
def host(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]) as state:
        yield state


def test_defaults(host):
    opts = shared.opts
    assert (opts.samples_save, opts.return_grid, opts.CLIP_stop_at_last_layers) == (True, True, 1)
    assert (opts.batch_cond_uncond, opts.pad_cond_uncond, opts.randn_source) == (True, False, "CPU")
    assert (opts.live_previews_enable, opts.save_incomplete_images) == (False, False)
    assert opts.outdir_txt2img_samples.startswith(host.paths.data_path)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = opts.nothing
    assert getattr(opts, "nothing", 5) == 5


def test_setting_calls_onchange_and_takes_back(host):
    opts, seen = shared.opts, []
    opts.onchange("jpeg_quality", lambda: seen.append(opts.jpeg_quality), call=False)
    assert opts.set("jpeg_quality", 90)
    assert not opts.set("jpeg_quality", 90)
    assert seen == [90]
    opts.onchange("jpeg_quality", lambda: 1 / 0, call=False)
    assert not opts.set("jpeg_quality", 50)
    assert opts.jpeg_quality == 90
    assert opts.set("jpeg_quality", 50, run_callbacks=False)


def test_restricted_settings(host):
    opts = shared.opts
    opts.add_option("hidden", options.OptionInfo(1, "Hidden", None, {"visible": False}))
    opts.add_option("not_by_api", options.OptionInfo(1, restrict_api=True))
    opts.add_option("text", options.OptionHTML("<b>words</b>"))
    assert not opts.set("hidden", 2)
    assert not opts.set("not_by_api", 2, is_api=True)
    assert opts.set("not_by_api", 2)
    assert "text" not in opts.data
    with pytest.raises(RuntimeError, match="restricted"):
        opts.hidden = 3


def test_values_are_cast(host):
    cast = shared.opts.cast_value
    assert (cast("eta_noise_seed_delta", "12"), cast("samples_save", "False"), cast("eta_ddim", "0.5")) == (
        12,
        False,
        0.5,
    )


def test_settings_are_saved_and_loaded(tmp_path):
    file = tmp_path / "config.json"
    with namespace.installed(["--data-dir", str(tmp_path)]):
        shared.opts.jpeg_quality = 33
        shared.opts.save(str(file))
    with namespace.installed(["--data-dir", str(tmp_path)]):
        assert shared.opts.jpeg_quality == 33
    file.write_text("{ damaged")
    with namespace.installed(["--data-dir", str(tmp_path)]):
        assert shared.opts.jpeg_quality == 80
    assert (tmp_path / "config.json.damaged").read_text() == "{ damaged"


def test_settings_as_json(host):
    told = json.loads(shared.opts.dumpjson())
    assert told["jpeg_quality"] == 80
    assert "_comments_after" in told


def test_options_survive_a_later_add(tmp_path):
    (tmp_path / "config.json").write_text('{"of_an_extension": 8}')
    with namespace.installed(["--data-dir", str(tmp_path)]):
        assert shared.opts.of_an_extension == 8
        shared.opts.add_option("of_an_extension", shared.OptionInfo(1))
        assert shared.opts.of_an_extension == 8
        assert shared.opts.get_default("of_an_extension") == 1


def test_a_job_in_the_state(host):
    state = shared.state
    state.interrupt()
    state.begin("work")
    assert (state.interrupted, state.job, state.job_count, state.job_no) == (False, "work", -1, 0)
    state.sampling_step, state.job_count = 4, 2
    state.nextjob()
    assert (state.job_no, state.sampling_step) == (1, 0)
    assert state.dict()["job_count"] == 2
    state.skip()
    state.stop_generating()
    assert (state.skipped, state.stopping_generation) == (True, True)
    state.end()
    assert (state.job, state.job_count) == ("", 0)


def test_server_commands(host):
    state = shared.state
    assert state.wait_for_server_command(timeout=0) is None
    threading.Timer(0.05, state.request_restart).start()
    assert state.wait_for_server_command(timeout=5) == "restart"
    assert state.server_command is None
    assert state.interrupted
    state.need_restart = True
    assert state.need_restart


def test_styles(tmp_path):
    rows = 'name,prompt,negative_prompt\nold,"{prompt}, on old paper",modern\nred,red,\n'
    (tmp_path / "styles.csv").write_text(rows, encoding="utf8")
    with namespace.installed(["--data-dir", str(tmp_path)]):
        styles = shared.prompt_styles
        assert styles.apply_styles_to_prompt("a cat", ["old", "red", "unknown"]) == "a cat, on old paper, red"
        assert styles.apply_negative_styles_to_prompt("", ["old", "red"]) == "modern"


def test_state_can_be_assigned_through_the_modules(host):
    import modules.scripts
    import modules.shared

    modules.scripts.scripts_current = "runner"
    modules.shared.demo = "page"
    assert (host.scripts_current, host.demo) == ("runner", "page")
    modules.shared.something_new = 1
    assert modules.shared.something_new == 1
    del modules.shared.something_new
    with pytest.raises(AttributeError, match="can't be assigned"):
        modules.shared.models_path = "elsewhere"
    assert "opts" in dir(modules.shared)


def test_files_in_natural_order(tmp_path):
    for name in ("frame 10.png", "frame 2.PNG", ".hidden", "a.txt"):
        (tmp_path / name).touch()
    assert [path.rpartition("/")[2] for path in shared.walk_files(str(tmp_path), [".png"])] == [
        "frame 2.PNG",
        "frame 10.png",
    ]
    assert len(shared.listfiles(str(tmp_path))) == 3
