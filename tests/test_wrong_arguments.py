"""Public functions refuse a first argument of another kind, in a sentence."""

from inspect import isgenerator, signature
from pathlib import Path

import pytest
import torch

import restart_sampling as rs

NET = rs.GaussianMixture(torch.zeros(1, 2), 0.3)
PATH = rs.ode_path((3.0, 1.0, 0.0))
TABLE = (0.9, 0.5, 0.1)
MORE = {
    "EDMNoise": (PATH,),
    "GaussianMixture": (0.3,),
    "RestartInterval": (1, 0.1, 1.0),
    "churn_path": (1.0,),
    "evaluate": ("4",),
    "follow": (torch.zeros(1, 2), PATH),
    "from_edm": (0.002, 80),
    "from_eps": (TABLE,),
    "from_v": (TABLE,),
    "from_x0": (TABLE,),
    "guided": (2.0,),
    "log_grid": (80, 0.1),
    "power_grid": (80, 0.1),
    "report": ("page.html",),
    "restart_path": ((),),
    "sample": ("4", (0,), (2,)),
    "steps": ("4", (0,), (2,)),
    "sweep": ("4",),
    "tune": (4,),
    "vp_time_grid": (80, 0.1),
}
"""Other arguments, which are right."""
NAMED = {
    "PFGMppNoise": {"D": 8},
    "evaluate": {"reference": "ref.npz", "seeds": (0,)},
    "sweep": {"reference": "ref.npz", "out": "run"},
    "tune": {"objective": lambda samples: 0.0, "shape": (2,), "out": "run"},
}
RECORDS = {"Batch", "InputError", "Move", "Net", "NoisePath", "Process", "Step"}
"""What is returned or raised."""
FUNCTIONS = [name for name in sorted({*rs.__all__} - RECORDS) if callable(getattr(rs, name))]


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if signature(getattr(rs, name)).parameters])
@pytest.mark.parametrize("wrong", [None, 1j, object(), [None], Path("none")])
def test_a_first_argument_of_another_kind_is_refused(name, wrong, tmp_path, monkeypatch):
    def called():
        found = getattr(rs, name)(wrong, *MORE.get(name, ()), **NAMED.get(name, {}))
        return list(found) if isgenerator(found) else found

    monkeypatch.chdir(tmp_path)
    with pytest.raises(rs.InputError):
        called()
    assert not any(tmp_path.iterdir())


MODEL = rs.load_model("cifar10-small")
STATE = torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rs.follow(NET, STATE, PATH, "heun"), "the solver is 'heun'; give one such as rs.Heun()"),
        (lambda: rs.follow(NET, STATE, PATH, rs.Heun(), rs.Heun), "the solver is <class .*; give one such as"),
        (lambda: rs.follow(NET, STATE, PATH, process="VE"), "the process is of type str; give rs.VE or rs.FLOW"),
        (lambda: PATH.nfe("heun"), "the solver is 'heun'; give one such as rs.Heun()"),
        (lambda: rs.NoisePath.through(5), "the list of levels is of type int; give a sequence"),
        (lambda: rs.NoisePath.through(["3", "1"]), "a level = '3'; give a number"),
        (lambda: rs.restart_path((3, 1, 0), 5), "the list of restart intervals is of type int; give"),
        (lambda: rs.restart_path((3, 1, 0), (), grid="karras"), "grid is of type str; give a function of levels"),
        (lambda: rs.RestartInterval(3, 1, 0.1, 1).snap(5), "the main grid is of type int; give a sequence"),
        (lambda: rs.RestartInterval(3, 1, 0.1, 1).snap([]), "the main grid .. has no level above 0"),
        (lambda: rs.GaussianNoise([0], process="VE"), "the process is of type str; give rs.VE or rs.FLOW"),
        (lambda: rs.Plan(5).path(round_level=2), "round_level is of type int; give a function of levels"),
        (lambda: rs.Plan(5).path("0.1"), "sigma_min = '0.1'; give a number"),
        (lambda: rs.Plan(5, solver="ddpm").explain(process="VE"), "the process is of type str; give rs.VE or rs.FLOW"),
        (lambda: rs.Plan(5).set(("rho", 5)), "a setting is of type tuple; give its text"),
        (lambda: rs.steps_preset(-3), "steps is -3; give the pipeline's num_inference_steps, 1 or more"),
        (lambda: rs.steps_preset(20, solver=3), "the solver is of type int; give its name, such as 'heun'"),
        (lambda: rs.guidance_preset(7.5, [20]), "evaluations is .20.; there are forms of 20, 25, 30"),
        (lambda: rs.sliced_wasserstein(STATE, 0), "directions is 0; give at least 1"),
        (lambda: rs.sliced_wasserstein(STATE, "8"), "directions = '8'; give a whole number"),
        (lambda: rs.sliced_wasserstein(STATE, seed=0.5), "seed = 0.5; give a whole number"),
        (lambda: rs.Plan(18, grid=(80, 5, 0)), r"grid = \(80, 5, 0\); give its name, such as 'karras'"),
        (lambda: rs.Plan(18, restart_solver=rs.Heun()), r"restart_solver = Heun\(\); give its name, such as 'heun'"),
        (lambda: rs.fast(MODEL, "float16"), "the dtype is of type str; give one of torch's, such as torch.float16"),
        (lambda: rs.evaluate(MODEL, "2", reference="r", seeds=[0], blocks="2"), "blocks = '2'; give a whole number"),
        (lambda: rs.sweep(MODEL, ["2"], reference="r", out="o", images=1e4), "images = 10000.0; give a whole number"),
    ],
)
def test_what_is_easily_taken_for_another_argument_is_refused(call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rs.InputError, match=said):
        call()
    assert not any(tmp_path.iterdir())
