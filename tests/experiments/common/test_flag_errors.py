"""Unknown flags and settings are reported with the names that may be meant."""

import pytest
from programs import run_program


@pytest.mark.parametrize(
    ("program", "word", "message"),
    [
        ("predict", "--crf=released", "unknown flag --crf; did you mean --config.inference.crf?"),
        ("predict", "--inference.crf=usual", "unknown flag --inference.crf; did you mean --config.inference.crf?"),
        ("predict", "--batch_size=3", "unknown flag --batch_size; did you mean --config.inference.batch_size?"),
        ("predict", "--checkpiont=a", "unknown flag --checkpiont; did you mean --checkpoint?"),
        ("predict", "--learning_rate=1", "unknown flag --learning_rate"),  # It has no meaning there.
        (
            "voc_eval",
            "--batch_size=3",
            "unknown flag --batch_size; did you mean --config.batch_size or --config.calibrate.batch_size or "
            "--config.inference.batch_size?",
        ),
        (
            "voc_train",
            "--learning_rate=1",
            "unknown flag --learning_rate; did you mean --config.optimizer.learning_rate?",
        ),
        ("voc_train", "--voc_root=a", "unknown flag --voc_root; did you mean --config.data.voc_root?"),
        ("import_coco", "--crf=usual", "unknown flag --crf"),  # It has no config.
    ],
)
def test_a_flag_that_lacks_its_section(program, word, message):
    done = run_program(program, word)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {message} (see --help)\n"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.voc_rot", "data.voc_rot; did you mean data.voc_root?"),
        ("dta.mirror", "dta.mirror; did you mean data.mirror?"),
        ("mirror", "mirror; did you mean data.mirror?"),
        ("seed.a", "seed.a"),
        ("data.qqqq", "data.qqqq"),
        ("stage1.seed", "stage1.seed; only configs of two stages have it, such as voc_two_stage"),
    ],
)
def test_a_setting_that_does_not_exist(key, message):
    done = run_program("voc_train", "--config=demo", "--workdir=never/made", f"--config.{key}=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: no such setting: {message} (experiments/configs/default.py lists all settings)\n"
