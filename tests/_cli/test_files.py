import joblib
import pytest
from sklearn.linear_model import Ridge

from skqeq import KQEqRegressor
from skqeq._cli import files

from .common import error_of


def test_interrupted_save_keeps_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "model.joblib"
    path.write_text("old")

    def dump(model, target):
        target.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(joblib, "dump", dump)
    with pytest.raises(KeyboardInterrupt):
        files.save_model(KQEqRegressor(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.joblib"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    "model, structures, message",
    [
        ("nothing.joblib", "train.xyz", "cannot read {0}/nothing.joblib: No such file"),
        ("train.xyz", "train.xyz", "train.xyz is not a model file"),
        ("ridge.joblib", "train.xyz", "holds no fitted charge model: Ridge is"),
        ("model.joblib", "nothing.xyz", "cannot read {0}/nothing.xyz: no such file"),
        ("model.joblib", "text.xyz", "{0}/text.xyz, line 1: 'this is' is not the number"),
        ("model.joblib", "empty.xyz", "{0}/empty.xyz"),
        ("model.joblib", "cut.xyz", "{0}/cut.xyz ends in structure 1"),
        ("model.joblib", "cut.xyz@:", "cannot read {0}/cut.xyz@: after 1 structures: "),
    ],
)
def test_bad_files(folder, tmp_path, capsys, command, model, structures, message):
    joblib.dump(Ridge(), folder / "ridge.joblib")
    (folder / "text.xyz").write_text("this is\nno structure\n")
    (folder / "empty.xyz").write_text("")
    whole = (folder / "train.xyz").read_text().splitlines()
    (folder / "cut.xyz").write_text("\n".join(whole[:8]) + "\n")
    argv = [command, folder / model, folder / structures, "-q"]
    argv += ["-o", tmp_path / "out.xyz"] if command == "predict" else []
    assert message.format(folder) in error_of(capsys, *argv)
    assert not list(tmp_path.iterdir())
