"""Rows from files, presets and the paper's tables; every slip is one sentence."""

import csv
import io
import json
from pathlib import Path

import pytest

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.named_plans import check_different, family_of, read_rows, script_settings
from restart_sampling.comparison.published import CHECKPOINTS, NOTES, paper_rows, published
from restart_sampling.models.default_plans import DEFAULT_PLANS
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.presets import PRESETS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "plans"

# The original's params_cifar10_vp.txt and a line of params_imagenet_edm.txt, in its own words.
ORIGINAL = """18 {"0": [3, 2, 0.06, 0.30]}
18 {"0": [3, 5, 0.06, 0.30]}
20 {"0": [9, 30, 0.06, 0.20]}

14 {"0": [3, 1, 19.35, 40.79], "1": [3, 1, 1.09, 1.92], "2": [3, 1, 0.06, 0.30]}
"""


def write(path, text):
    path.write_text(text)
    return str(path)


def test_the_originals_files(tmp_path):
    rows = read_rows(write(tmp_path / "params.txt", ORIGINAL))
    assert [row.plan.path().nfe(*row.plan.solvers) for row in rows] == [43, 55, 519, 39]
    assert rows[0].plan == Plan.parse("18 [3,2,0.06,0.30]")


@pytest.mark.parametrize(
    ("name", "s_noise"),
    [
        ("params_imagenet_edm.txt", 1.003),
        ("params_imagenet_edm.TXT", 1.003),
        ("params_ImageNet_edm.txt", 1.003),
        ("params_imagenet64_edm.txt", 1.003),
        ("params_cifar10_vp.txt", 1.0),
        ("PARAMS_cifar10_vp.txt", 1.0),
        ("params_mine.txt", 1.0),
    ],
)
def test_the_originals_lines_get_what_its_sweep_script_passes(name, s_noise, tmp_path):
    own = '18\n18 [3,2,0.06,0.30]\n18 {"0": [3, 2, 0.06, 0.30]} gamma=0  # mine\n18 gamma=0 [3,2,0.06,0.30]\n'
    file = write(tmp_path / name, own + "cifar10-vp-43\n" + ORIGINAL)
    ode, short, without, first_without, preset, *rows = read_rows(file)
    passed = f"gamma=0.05 s_min=0.01 s_max=1 s_noise={s_noise}"
    assert ode.plan == Plan.parse(f"18 {passed}")
    assert short.plan == Plan.parse(f"18 [3,2,0.06,0.30] {passed}")
    assert without.plan == first_without.plan == Plan.parse(f"18 [3,2,0.06,0.30] {passed}").set("gamma=0")
    assert preset.plan == Plan.parse("cifar10-vp-43")
    for row in rows:
        assert (row.plan.gamma, row.plan.s_min, row.plan.s_max, row.plan.s_noise) == (0.05, 0.01, 1.0, s_noise)
    assert rows[-1].plan == Plan.parse("imagenet64-edm-39").set(f"s_noise={s_noise}")
    assert all(setting in script_settings(file) for setting in str(rows[0].plan).split()[2:])
    assert script_settings("params_absent.txt") == script_settings("cifar10-vp-*") == ""


def test_text_with_comments_and_presets(tmp_path):
    rows = read_rows(write(tmp_path / "plans", "# first\n18  # the ODE\n\ncifar10-vp-43\ncifar10-vp-43 s_noise=1.01\n"))
    assert [row.name for row in rows] == ["18", "cifar10-vp-43", "18 [3,2,0.06,0.3] s_noise=1.01"]


def test_presets_by_pattern():
    rows = read_rows("cifar10-vp-sde-*")
    assert all(row.plan.preset == row.name for row in rows)  # for the note where the model is another
    assert [str(row.plan) for row in rows] == [
        str(Plan.parse(preset.plan)) for name, preset in PRESETS.items() if name.startswith("cifar10-vp-sde-")
    ]
    assert len(rows) == 6


def test_a_csv_with_the_columns_of_the_papers_plans(tmp_path):
    columns = "name,dataset,checkpoint,steps,intervals,s_noise,gamma,s_min,s_max,solver,sigma_min,sigma_max,nfe,"
    text = (
        columns + "fid_paper,note\n"
        'a,cifar10,vp,18,"[3,2,0.06,0.30]",1.0,0,0,inf,heun,0.002,80,43,2.70,as the paper words it\n'
        'b,cifar10,vp,5,"[3,1,0.06,1]",1.003,0.05,0.01,1,dpm3,0.010486,152.167,18,2.4,\n'
    )
    a, b = read_rows(write(tmp_path / "plans.csv", text))
    assert (a.name, a.plan, a.published) == ("a", Plan.parse("18 [3,2,0.06,0.30]"), 2.7)
    assert b.plan == Plan.parse("cifar10-vp-dpm3-18")
    assert b.family == "Restart (dpm3, churn)"


def test_csv_and_toml_say_the_same(tmp_path):
    table = write(tmp_path / "a.csv", 'name,plan,family,churn\nx,18,,\ny,"18 [3,2,0.06,0.3]",mine,2\n')
    toml = write(
        tmp_path / "a.toml",
        '[[row]]\nname = "x"\nplan = "18"\n[[row]]\nname = "y"\nsteps = 18\nintervals = "[3,2,0.06,0.3]"\n'
        'family = "mine"\nchurn = 2\n',
    )
    assert read_rows(table) == read_rows(toml)
    for path in map(Path, (table, toml)):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-16"))
    assert read_rows(table) == read_rows(toml)
    assert read_rows(table)[1].family == "mine"
    Path(table).write_bytes("plan\n18\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"a\.csv is no text in UTF-8, nor in UTF-16 with its mark; save it as UTF-8"):
        read_rows(table)


@pytest.mark.parametrize(
    ("plan", "family"),
    [
        ("18", "ODE (heun)"),
        ("18 solver=ddim", "ODE (ddim)"),
        ("18 solver=ddpm", "SDE (ddpm)"),
        ("18 solver=sa", "SDE (sa)"),
        ("18 solver=sa:tau=0", "ODE (sa:tau=0)"),
        ("18 solver=ddim:eta=0", "ODE (ddim:eta=0)"),
        ("18 churn=3", "SDE (heun, churn)"),
        ("18 [3,2,0.06,0.3]", "Restart (heun)"),
        ("18 [3,2,0.06,0.3] gamma=0.05", "Restart (heun, churn)"),
        ("18 [3,2,0.06,0.3] solver=dpmpp_2m restart_solver=heun", "Restart (dpmpp_2m + heun)"),
    ],
)
def test_families(plan, family):
    assert family_of(Plan.parse(plan)) == family


def test_the_nfe_of_a_plan_for_a_flow(tmp_path):
    """Both intervals snap to one level sigma, and to two levels t."""
    (row,) = read_rows(write(tmp_path / "flow.csv", 'plan,nfe\n"6 [3,2,0.2,0.5] [3,1,0.4,0.7]",23\n'))
    assert row.plan.path(0.0, 1.0).nfe(*row.plan.solvers) == 23


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "plan,colour\n18,red\n", "unknown column 'colour'"),
        ("a.csv", "plan,steps\n18,18\n", "line 2: give either plan, or steps"),
        ("a.csv", "plan,nfe\n18,many\n", "nfe is 'many', which is no finite number"),
        ("a.csv", "plan\n18,[3\n", "more cells than the header"),
        ("a.csv", "plan,churn\n18,much\n", "'churn=much' is not a number"),
        ("a.csv", "plan,fid_paper\n18,low\n", "fid_paper is 'low'"),
        ("a.csv", "plan,fid_paper\n18,inf\n", "fid_paper is 'inf', which is no finite number"),
        ("a.csv", "plan,s_noise,s_noise\n18,1,1.5\n", "has the column s_noise twice; keep one"),
        ("a.csv", 'plan\n"18\n20"\n', "cannot read '20'"),
        ("a.csv", "plan\n", "there is no plan in it"),
        ("a.toml", "plan = 18\n", "tables [[row]]"),
        ("a.toml", "[[row]\n", "is not TOML"),
        ("a.toml", '[[row]]\nplan = "18"\ncolour = "red"\n', "unknown column 'colour'"),
        ("a.txt", "18\nnonsense\n", "line 2: there is no preset 'nonsense'"),
        ("a.txt", "18 [3,2,0.3,0.06]\n", "t_min < t_max"),
        ("a.txt", "# nothing\n", "there is no plan in it"),
    ],
)
def test_what_is_no_row_is_named(tmp_path, name, text, said):
    with pytest.raises(InputError) as error:
        read_rows(write(tmp_path / name, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_alike(tmp_path):
    rows = read_rows(
        write(tmp_path / "a.csv", 'name,plan\nx,"18 [3,2,0.06,0.30]"\ny,"18 {""0"": [3, 2, 0.06, 0.3]}"\n')
    )
    with pytest.raises(InputError, match="rows 'x' and 'y' are alike"):
        check_different(rows)
    rows = read_rows(write(tmp_path / "b.csv", "name,plan\nx,18\nx,19\n"))
    with pytest.raises(InputError, match="two rows have the name 'x'"):
        check_different(rows)
    rows = read_rows(write(tmp_path / "c.csv", "name,plan\nx,18\ny,18 gamma=0.1\n"))
    check_different(rows)
    with pytest.raises(InputError, match=r"alike: '18 gamma=0\.1' draws the same as '18'; leave"):
        check_different(rows, lambda plan: plan.effect())


@pytest.mark.parametrize("setting", CHECKPOINTS)
def test_the_papers_rows_take_the_evaluations_that_it_prints(setting):
    figures = published(setting)
    for line in figures:
        assert line.source.startswith(("table", "figure 4"))
        if line.plan:
            plan = Plan.parse(line.plan)
            assert plan.path().nfe(*plan.solvers) == line.nfe, line
    rows = paper_rows(setting)
    check_different(rows, lambda plan: plan.effect())
    assert {row.published for row in rows} == {line.fid for line in figures if line.plan}
    assert NOTES[setting]


def test_published_figures_are_those_of_the_presets():
    by_plan = {
        line.plan: line.fid for setting in CHECKPOINTS for line in published(setting) if line.source != "table 1"
    }
    for name in by_plan.keys() & PRESETS.keys():
        assert by_plan[name] == PRESETS[name].fid, name


def test_contradictions_are_stated():
    assert any("1.41" in note and "1.46" in note for note in NOTES["imagenet64"])
    assert any("gamma = 0.05" in note for note in NOTES["cifar10-vp"])
    assert any("NFE 30" in note and "27" in note for note in NOTES["cifar10-vp"])


def test_the_data_file_is_a_clean_table():
    text = Path(published.__code__.co_filename).with_name("published.csv").read_text()
    table = list(csv.reader(io.StringIO(text)))
    assert {len(line) for line in table} == {6}
    assert len({tuple(line) for line in table}) == len(table)


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_plans_of_the_benchmarks_differ_and_keep_to_their_budget(file):
    rows = read_rows(str(file))
    check_different(rows, lambda plan: plan.effect())
    if budgets := {int(part) for part in file.stem.split("-") if part.isdecimal()}:
        spent = [row.plan.path().nfe(*row.plan.solvers) for row in rows]
        nearest = [min(budgets, key=lambda budget: abs(budget - nfe)) for nfe in spent]
        assert set(nearest) == budgets
        assert all(abs(nfe - budget) <= 1 for nfe, budget in zip(spent, nearest, strict=True))


def test_one_plan_is_a_source_too():
    [row] = read_rows("9 [3,1,0.3,1] solver=midpoint")
    assert (row.name, row.family) == ("9 [3,1,0.3,1] solver=midpoint", "Restart (midpoint)")


def test_the_presets_of_tune_are_the_plans_of_their_evidence():
    found = {}
    for model in DEFAULT_PLANS:
        for path in (BENCHMARKS.parent / "results" / f"{model}-tuned").glob("plan-*.json"):
            content = json.loads(path.read_text())
            assert content["model"] == model
            found[f"{model}-tuned-{content['nfe']}"] = (content["plan"], model, content["nfe"])
    tuned = {name: (each.plan, each.checkpoint, each.nfe) for name, each in PRESETS.items() if "-tuned-" in name}
    assert tuned == found
