"""The exported site is complete, lists its files, and is written only where nothing of the user lies."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Outcome
from helpers.made_networks import save_network

from agegender.errors import AgeGenderError
from agegender.prediction.backends.onnx_backend import OnnxBackend
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.export import onnx_graph, parity
from agegender.prediction.faces import alignment, detector
from agegender.web.site import export as site
from agegender.web.site.export import MANIFEST, export_site
from agegender.web.site.runtime import NAMES

Run = Callable[..., Outcome]
SCRIPTS = Path(site.__file__).parent / "page"


@pytest.fixture
def run(run_here: Run) -> Run:
    """Runs the command in the process of the test."""
    return lambda *arguments: run_here("agegender/prediction/export/__main__.py", "format=web", *arguments)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files under the names of ONNX Runtime's."""
    folder = tmp_path_factory.mktemp("dist")
    for name in NAMES:
        (folder / name).write_text(f"/* ONNX Runtime Web v1.2.3 */ {name}")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("networks") / "tiny.ckpt")


@pytest.fixture(scope="module", autouse=True)
def _graph_built_once(weights: Path) -> Iterator[None]:
    """Builds the graph of the network once: all sites of this file are of one."""
    graph = onnx_graph.build_graph(TorchBackend(weights, device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "build_graph", lambda source: graph)
        yield


def test_site_is_complete_and_lists_its_files(run: Run, dist: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    outcome = run(f"out={out}", f"weights={weights}", f"runtime={dist}", "precision=float32")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f" MB in {out}; try it: python -m http.server -d {out}\n")
    manifest = json.loads((out / MANIFEST).read_text())
    written = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    del written[MANIFEST]
    assert manifest["onnxruntime-web"] == "1.2.3"
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(written.items())
    }
    model = json.loads(written["model.json"])
    assert model["tasks"] == [info.to_dict() for info in OnnxBackend(out / "model.onnx").tasks]
    assert {each["address"] for each in model["samples"]} <= set(written)
    page = written["index.html"].decode()
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    for name in [name for name in written if re.fullmatch(r"\w+\.js", name)]:
        named |= set(re.findall(r'from "\./([^"]+)"', written[name].decode()))
    assert named <= set(written) and {"worker.js", "runtime/ort.wasm.min.mjs", "licenses.txt"} <= set(written)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert policy is not None and not re.search(r"https?:|\*|unsafe-inline|'unsafe-eval'", policy[1])
    assert page.index("Content-Security-Policy") < page.index("<link")
    # a second export replaces the files of the first
    (out / "model.json").write_text("old")
    export_site(str(out), str(weights), precision="float32", runtime=str(dist))
    assert (out / "model.json").read_bytes() == written["model.json"]


@pytest.mark.parametrize(("limit", "taken"), [(100.0, "int8"), (1e-9, "float32")])
def test_site_takes_the_smallest_precision_that_keeps_the_predictions(
    dist: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: float,
    taken: str,
) -> None:
    monkeypatch.setattr(parity, "NARROWED", (limit, limit / 1000))
    export_site(str(tmp_path / "site"), str(weights), runtime=str(dist))
    lines = capsys.readouterr().out.splitlines()
    kinds = [line.split()[0] for line in lines if " MB, differs by" in line]
    dropped = [line.split()[0] for line in lines if "moves the predictions too far" in line]
    assert kinds == (["float32", "int8"] if taken == "int8" else ["float32"])
    assert dropped == ([] if taken == "int8" else ["int8", "float16"])
    assert (b".narrow" in (tmp_path / "site" / "model.onnx").read_bytes()) == (taken == "int8")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "say where to: agegender export format=web out=site"),
        (("out={folder}/mine.txt",), "mine.txt is a file; give a folder"),
        (("out={folder}",), "holds other files and no manifest.json of an earlier export; give an empty folder"),
        (("out={folder}/site", "runtime={folder}"), "ort.wasm.min.mjs can't be read (No such file or directory)"),
        (("out={folder}/a.onnx", "format=onnx", "runtime={folder}"), "is for format=web; leave it out"),
    ],
)
def test_export_refuses_settings_that_do_not_fit(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], error: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    outcome = run(*(argument.format(folder=folder) for argument in arguments))
    outcome.assert_one_line_error(error)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_site_names_an_output_that_can_not_be_written(dist: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgeGenderError, match=r"can't write the page .*file/site"):
        export_site(str(tmp_path / "file" / "site"), str(weights), precision="float32", runtime=str(dist))


# Constants of two languages


def constants(name: str) -> dict[str, str]:
    """Returns the constants of a script by name, as they are written."""
    return dict(re.findall(r"^(?:export )?const ([A-Z_]+) = (.*?);", (SCRIPTS / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("script", "module", "names"),
    [
        ("alignment.js", alignment, ("TEMPLATE", "TOLERANCE", "_LARGEST_WARP")),
        (
            "detector.js",
            detector,
            (
                *(
                    "CANDIDATE_SCORE",
                    "MIN_SCORE",
                    "_TURNED_DISTANCE",
                    "_UPRIGHT",
                    "_LEVEL",
                    "_RECENTERED",
                    "_LOOKED_AT",
                ),
                *("_ENOUGH", "_LEAST_SIDE", "_LARGE", "_SMALL", "_OTHER_SIDE"),
            ),
        ),
        ("yunet.js", detector, ("_LEAST_SEEN",)),
    ],
)
def test_scripts_have_the_constants_of_the_package(script: str, module: object, names: tuple[str, ...]) -> None:
    written = constants(script)
    for name in names:
        value = getattr(module, name)
        if name == "_LOOKED_AT":
            value = list(value)
        expected = value.tolist() if name == "TEMPLATE" else list(value) if isinstance(value, tuple) else value
        assert json.loads(written[name.removeprefix("_")]) == expected, name
