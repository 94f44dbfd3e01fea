"""`python -m motion schedule`: what each frame of a prompt shows, for people and for programs."""

import io
import json

import pytest

from motion.standalone import cli

PROMPT = "1girl\n0 cfg=5: closed eyes\n2: open eyes\nsmile"


def schedule(capsys, *arguments):
    status = cli.main(["schedule", *arguments])
    return status, *capsys.readouterr()


def test_text(capsys):
    status, out, _ = schedule(capsys, PROMPT, "--frames", "4")
    assert status == 0
    assert out == (
        "0: 1girl, closed eyes, smile\n1: to the next prompt, 50%\n2-3: 1girl, open eyes, smile\ncfg: 0-3 5\n"
    )


def test_json_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT))
    status, out, _ = schedule(capsys, "-", "--frames", "4", "--closed-loop", "--json")
    assert (status, out.count("\n")) == (0, 1)
    assert json.loads(out) == {
        "prompts": ["1girl, closed eyes, smile", "1girl, open eyes, smile"],
        "frames": [[0, 0, 0.0], [0, 1, 0.5], [1, 1, 0.0], [1, 0, 0.5]],
        "cfg": [5.0] * 4,
        "motion": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0: a\n16: b"], "'16: b': Frame 16 is outside the clip"),
        (["8;: a"], "Prompt line '8;: a'"),
        (["0 cfg=5: a", "--negative"], "not into the negative prompt"),
        (["a", "--frames", "none"], "`num_frames` must be a whole number"),
    ],
)
def test_bad_input_is_one_message(capsys, arguments, message):
    status, out, error = schedule(capsys, *arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
