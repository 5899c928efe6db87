"""Nets from networks: every prediction of one exact denoiser gives the same samples, in any shape and dtype."""

import math
from functools import partial

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import restart_sampling as rs
from exact import gaussian, mixture
from restart_sampling.base.errors import InputError
from restart_sampling.base.files import sha256
from restart_sampling.models.resolve import resolve
from restart_sampling.sampling.net_plan import net_path

PLAN = "12 [4,2,0.3,2] s_noise=1.01 sigma_min=0.02"
LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
COSINE = torch.cos((torch.arange(1, 1000, dtype=torch.float64) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
COSINE = torch.cat([COSINE, 1e-3 * COSINE[-1:]])  # its last beta is 0.999
SIGMAS = ((1 - LINEAR) / LINEAR).sqrt()
DOUBLE = {"dtype": torch.float64}


def sigma_of(t, table=SIGMAS):
    """Of an integer timestep, or of a float one, linear in log sigma."""
    if not t.is_floating_point():
        return table[t]
    low = t.long().clamp(max=len(table) - 2)
    return torch.exp(torch.lerp(table[low].log(), table[low + 1].log(), t - low))


class Predicting:
    """What a network of DDPM's kind answers that has learned the data exactly; notes what it is asked."""

    def __init__(self, what, data, table=SIGMAS):
        self.what, self.data, self.table, self.calls = what, data, table, []

    def __call__(self, x_t, t):
        self.calls.append((x_t.dtype, t))
        sigma = sigma_of(t, self.table)
        level = sigma.reshape(-1, *[1] * (x_t.ndim - 1))
        root_a, root_b = 1 / (1 + level**2).sqrt(), level / (1 + level**2).sqrt()
        x0 = self.data(x_t.double() / root_a, sigma)
        eps = (x_t - root_a * x0) / root_b
        return {"x0": x0, "eps": eps, "v": root_a * eps - root_b * x0}[self.what].to(x_t.dtype)


MAKE = {"eps": rs.from_eps, "v": rs.from_v, "x0": rs.from_x0}


def flow_net(reverse, data=None, **settings):
    """Of a network that has learned the velocity exactly, in one of both conventions."""
    data = data or mixture(rs.FLOW)

    def network(x, time):
        t = 1 - time if reverse else time
        level = t.reshape(-1, *[1] * (x.ndim - 1))
        velocity = (x - data(x, t)) / level
        return -velocity if reverse else velocity

    return rs.from_flow(network, reverse=reverse, **{**DOUBLE, **settings})


@pytest.mark.parametrize("solver", ["heun", "midpoint", "unipc", "ddpm"])
@pytest.mark.parametrize("what", MAKE)
def test_networks_of_timesteps_give_the_samples_of_the_denoiser(what, solver):
    """On the rounded path, but for stages between its levels, which take the nearest timestep."""
    network, plan = Predicting(what, mixture()), rs.Plan.parse(f"{PLAN} solver={solver}")
    net = MAKE[what](network, LINEAR, **DOUBLE)
    path = net_path(net, plan)
    noise = rs.GaussianNoise(range(16), s_noise=1.01)
    expected = rs.follow(mixture(), noise.start((3,), path.levels[0]), path, *plan.solvers, perturb=noise)
    tolerance = 0.02 if solver == "midpoint" else 1e-8
    torch.testing.assert_close(rs.sample(net, plan, range(16), (3,)), expected, rtol=0, atol=tolerance)
    known = torch.cat([SIGMAS, torch.zeros(1)]).double()
    asked = torch.tensor(path.levels, dtype=torch.float64)
    assert (asked[:, None] - known).abs().min(dim=1).values.max() < 1e-12  # processors round roots otherwise
    assert all(t.dtype == torch.int64 and t.shape == (16,) for _, t in network.calls)


@pytest.mark.parametrize("solver", ["heun", "midpoint"])
@pytest.mark.parametrize("what", MAKE)
def test_networks_of_any_time_give_them_on_the_plans_own_levels(what, solver):
    network, plan = Predicting(what, mixture()), f"12 [4,2,0.3,2] s_noise=1.01 sigma_min=0.05 solver={solver}"
    net = MAKE[what](network, LINEAR, continuous=True, **DOUBLE)
    torch.testing.assert_close(
        rs.sample(net, plan, range(16), (3,)), rs.sample(mixture(), plan, range(16), (3,)), rtol=0, atol=1e-7
    )
    assert all(t.dtype == torch.float64 for _, t in network.calls)
    assert any((t != t.round()).any() for _, t in network.calls)


@pytest.mark.parametrize("reverse", [False, True])
def test_flows_of_both_directions_give_the_samples_of_the_denoiser(reverse):
    plan = "12 [4,2,0.3,0.8] s_noise=1.01 solver=midpoint"
    net = flow_net(reverse)
    assert (net.sigma_max, net.process) == (1.0, rs.FLOW)
    expected = rs.sample(mixture(rs.FLOW), plan, range(16), (3,))
    torch.testing.assert_close(rs.sample(net, plan, range(16), (3,)), expected, rtol=0, atol=1e-9)


def test_a_flow_is_asked_in_its_own_direction():
    times = {}
    for reverse in (False, True):
        net = rs.from_flow(lambda x, t, r=reverse: times.setdefault(r, t) * 0 * x, reverse=reverse)
        net(torch.zeros(1, 1), torch.tensor([0.75], dtype=torch.float64))
    assert times == {False: 0.75, True: 0.25}


def test_a_denoiser_of_edms_kind_is_a_net():
    net = rs.from_edm(mixture(), 0.02, 80.0, **DOUBLE)
    assert torch.equal(rs.sample(net, PLAN, range(16), (3,)), rs.sample(mixture(), PLAN, range(16), (3,)))
    assert (net.sigma_min, net.sigma_max, net.D, net.evaluations(1.0)) == (0.02, 80.0, None, 1)


def test_a_cosine_schedule_enters_by_its_table():
    """As a process of its own it gave std 0.557 for 0.500."""
    sigmas = ((1 - COSINE) / COSINE).sqrt()
    net = rs.from_eps(Predicting("eps", gaussian(count=40), sigmas), COSINE, **DOUBLE)
    out = rs.sample(net, "40 solver=unipc", range(1000), (40,))
    assert out.std().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * out.numel()) + 1e-3)


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (1, 2, 3, 4), (2, 1, 2, 2, 3)])
def test_data_have_any_shape(shape):
    """A network that works on each number alone gives the same numbers in any shape."""
    nets = [
        *(MAKE[what](Predicting(what, lambda x, s: 0.25 * x / (0.25 + over(s, x) ** 2)), LINEAR) for what in MAKE),
        rs.from_edm(lambda x, s: 0.25 * x / (0.25 + over(s, x) ** 2), 0.002, 80.0),
        flow_net(True, lambda x, t: x * (1 - over(t, x)) / ((1 - over(t, x)) ** 2 + 4 * over(t, x) ** 2) ** 1),
    ]
    for net in nets:
        plan = "4 [3,1,0.3,0.8] sigma_min=0.05"
        out = rs.sample(net, plan, [1, 2], shape)
        assert out.shape == (2, *shape)
        torch.testing.assert_close(out.flatten(1), rs.sample(net, plan, [1, 2], (24,)))
        thresholded = rs.thresholded(rs.clipped(net, -0.5, 0.5))
        assert rs.sample(rs.guided(thresholded, 2.0, guide=net), plan, [1, 2], shape).shape == (2, *shape)


def over(level, x):
    return level.reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_networks_compute_in_their_dtype_under_a_float64_state(dtype):
    network = Predicting("eps", mixture())
    net = rs.from_eps(network, LINEAR, dtype=dtype)
    out = rs.sample(net, PLAN, range(16), (3,))
    assert out.dtype == torch.float64
    assert {each for each, _ in network.calls} == {dtype}
    exact = rs.sample(rs.from_eps(network, LINEAR, **DOUBLE), PLAN, range(16), (3,))
    assert (out - exact).abs().mean() < {torch.float16: 0.03, torch.bfloat16: 0.3, torch.float32: 1e-4}[dtype]


def test_times_are_never_rounded_to_float16():
    times = []
    for net in (
        rs.from_flow(lambda x, t: times.append(t) or x, dtype=torch.float16),
        rs.from_edm(lambda x, t: times.append(t) or x, 0.0, 80.0, dtype=torch.bfloat16),
        rs.from_eps(lambda x, t: times.append(t) or x, LINEAR, continuous=True, dtype=torch.float16),
    ):
        net(torch.zeros(1, 2), torch.tensor([0.7], dtype=torch.float64))
    assert {t.dtype for t in times} == {torch.float32}


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.dropout = torch.nn.Dropout()

    def forward(self, x, t, bias=0.0):
        return self.dropout(self.linear(x)) + bias


def test_a_module_says_its_dtype_device_and_identity():
    module = Tiny().half().eval()
    net = rs.from_eps(module, LINEAR)
    seen = []
    module.linear.register_forward_pre_hook(lambda _module, args: seen.append(args[0].dtype))
    assert rs.sample(net, "2", [1, 2], (3,)).dtype == torch.float64
    assert set(seen) == {torch.float16}
    assert net.device == torch.device("cpu")
    identities = {
        each.identity
        for each in (
            net,
            rs.from_v(module, LINEAR),
            rs.from_eps(module, LINEAR[:500]),
            rs.from_eps(module, torch.cat([LINEAR[:500], LINEAR[500:501] * 1.0000001, LINEAR[501:]])),
            rs.from_eps(module, LINEAR, **DOUBLE),
            rs.from_eps(module, LINEAR, continuous=True),
            rs.from_eps(module, LINEAR, clip=True),
            rs.from_eps(module, LINEAR, clip=(0, 1)),
            rs.from_eps(module, LINEAR, clip=(0, 1.0000001)),
            rs.thresholded(net),
            rs.from_flow(module),
            rs.from_flow(module, reverse=True),
            rs.from_edm(module, 0.1, 80.0),
            rs.from_eps(Tiny().eval(), LINEAR),
        )
    }
    assert len(identities) == 14
    assert None not in identities
    assert rs.from_eps(module, LINEAR).identity == net.identity
    assert rs.from_eps(lambda x, t: x, LINEAR).identity is None
    assert rs.clipped(rs.from_eps(lambda x, t: x, LINEAR)).identity is None
    named = rs.from_eps(lambda x, t: x, LINEAR, identity="epoch 9").identity
    assert named.startswith("epoch 9 ")
    with pytest.raises(rs.InputError, match="identity is empty"):
        rs.from_eps(lambda x, t: x, LINEAR, identity="")
    module.linear.weight.data += 1  # weights that change are other weights
    assert rs.from_eps(module, LINEAR).identity not in identities


def test_a_module_in_training_mode_is_refused():
    with pytest.raises(rs.InputError, match="the network is in training mode"):
        rs.sample(rs.from_eps(Tiny(), LINEAR), "2", [1], (3,))
    part = Tiny().eval()
    part.linear.train()
    with pytest.raises(rs.InputError, match="the network, its module linear, is in training mode"):
        rs.sample(rs.from_eps(part, LINEAR), "2", [1], (3,))


@pytest.mark.parametrize("wrapper", [torch.nn.DataParallel, AveragedModel])
def test_of_a_wrapper_of_torch_the_mode_of_the_network_in_it_counts(wrapper):
    wrapped = wrapper(Tiny().eval())
    assert wrapped.training
    assert rs.sample(rs.from_eps(wrapped, LINEAR), "2", [1], (3,)).shape == (1, 3)
    wrapped.module.linear.train()
    with pytest.raises(rs.InputError, match=r"the network, its module module\.linear, is in training mode"):
        rs.sample(rs.from_eps(wrapped, LINEAR), "2", [1], (3,))


class Holder:
    def __init__(self, module):
        self.module = module

    def __call__(self, x, t):
        return self.module(x, t)

    @torch.no_grad()
    def trained(self, x, t):
        return self.module(x, t)

    def averaged(self, x, t):
        return self.average(x, t)


class Parts(Holder, torch.nn.Module):
    def __init__(self, module):
        torch.nn.Module.__init__(self)
        super().__init__(module)


MODULE = Tiny()
HOLDERS = {
    "a variable around it": ("module", lambda module: lambda x, t: module(x, t)),
    "a variable of the file": ("MODULE", lambda module: lambda x, t: MODULE(x, t)),
    "decorated": ("module", lambda module: torch.no_grad()(lambda x, t: module(x, t))),
    "bound by name": ("net", lambda module: partial(lambda x, t, net: net(x, t), net=module)),
    "bound by place": ("0", lambda module: partial(lambda net, x, t: net(x, t), module)),
    "an object": ("module", Holder),
    "a method": ("module", lambda module: Holder(module).trained),
    "a module's forward": ("", lambda module: module.forward),
    "a module's method": ("module", lambda module: Parts(module).trained),
}


@pytest.mark.parametrize("case", HOLDERS)
def test_a_module_that_a_function_is_seen_to_use_is_refused_in_training_mode(case):
    name, hold = HOLDERS[case]
    net = rs.from_eps(hold(MODULE), LINEAR)
    for linear in ("", ".linear"):
        MODULE.eval().get_submodule(linear[1:]).train()
        said = f", its module {(name + linear).strip('.')}," if name + linear else ""
        with pytest.raises(rs.InputError, match=f"the network{said} is in training mode, .*; call its eval"):
            rs.sample(net, "2", [1], (3,))
    MODULE.eval()
    assert rs.sample(net, "2", [1], (3,)).shape == (1, 3)


@pytest.mark.parametrize("kind", [Holder, Parts])
def test_what_an_object_holds_and_does_not_call_may_be_in_training(kind):
    holder = kind(Tiny())
    holder.average = Tiny().eval()
    assert rs.sample(rs.from_eps(holder.averaged, LINEAR), "2", [1], (3,)).shape == (1, 3)
    with pytest.raises(rs.InputError, match="its module module, is in training mode"):
        rs.sample(rs.from_eps(holder.trained, LINEAR), "2", [1], (3,))


def test_a_variable_counts_as_it_is_at_the_call():
    module = Tiny()
    net = rs.from_eps(lambda x, t: module(x, t), LINEAR)
    module = Tiny().eval()
    assert rs.sample(net, "2", [1], (3,)).shape == (1, 3)
    module = Tiny()
    with pytest.raises(rs.InputError, match="its module module, is in training mode"):
        rs.sample(net, "2", [1], (3,))


def test_of_several_networks_that_a_function_names_one_may_be_in_training():
    module, average = Tiny(), Tiny().eval()
    net = rs.from_eps(lambda x, t: (average if average else module)(x, t), LINEAR)
    assert rs.sample(net, "2", [1], (3,)).shape == (1, 3)
    average.train()
    with pytest.raises(rs.InputError, match="is in training mode"):
        rs.sample(net, "2", [1], (3,))


def test_a_function_with_a_variable_that_is_not_set_yet_is_a_network():
    net = rs.from_eps(lambda x, t: later(x, t), LINEAR)
    later = Tiny().eval()
    assert rs.sample(net, "2", [1], (3,)).shape == (1, 3)


def test_a_text_is_no_truth_value():
    for make in (
        lambda: rs.from_flow(torch.tanh, reverse="no"),
        lambda: rs.from_eps(torch.tanh, LINEAR, continuous="no"),
        lambda: rs.guided(rs.from_flow(torch.tanh), 2.0, unconditional={}, batched="no"),
    ):
        with pytest.raises(rs.InputError, match=r"(reverse|continuous|batched) = 'no'; give True or False"):
            make()


@pytest.mark.parametrize(
    ("network", "options", "sentence"),
    [
        (None, {}, "the network is None; give a torch module or a function"),
        (torch.nn.Linear, {}, "the network is <class .*Linear'>; give a torch module"),
        (torch.nn.Linear(3, 3, device="meta"), {}, "the network is on the meta device"),
        (torch.tanh, {"dtype": torch.int64}, r"dtype is torch\.int64; give one of real numbers"),
        (torch.tanh, {"dtype": "float16"}, "dtype is 'float16'; give one of real numbers"),
    ],
)
def test_what_is_no_network_or_dtype_is_refused_when_the_net_is_made(network, options, sentence):
    for make in (lambda: rs.from_flow(network, **options), lambda: rs.from_edm(network, 0.002, 80, **options)):
        with pytest.raises(rs.InputError, match=sentence):
            make()


@pytest.mark.parametrize("make", [*(lambda n, f=f: f(n, LINEAR) for f in MAKE.values()), rs.from_flow])
def test_keyword_arguments_are_the_networks(make):
    seen = []

    def network(x, t, class_labels, scale=1.0):
        seen.append((class_labels, scale))
        return scale * x

    labels = torch.tensor([1, 2])
    rs.sample(rs.clipped(make(network)), "3", [1, 2], (3,), class_labels=labels, scale=0.5)
    assert len(seen) == 5
    assert all(given is labels and scale == 0.5 for given, scale in seen)
    with pytest.raises(TypeError, match="unexpected keyword argument 'class_label'"):
        rs.sample(make(network), "3", [1, 2], (3,), class_label=labels)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'class_labels'"):
        rs.sample(make(network), "3", [1, 2], (3,))
    with pytest.raises(TypeError, match="unexpected keyword argument 'clipp'"):
        rs.from_flow(network, clipp=True)


def test_networks_whose_answer_is_not_like_x_are_refused():
    for net in (rs.from_eps(lambda x, t: x[:, :1], LINEAR), rs.from_flow(lambda x, t: x[:, :1])):
        with pytest.raises(rs.InputError, match=r"the network returned a tensor \[2, 1\] for states \[2, 3\]"):
            rs.sample(net, "2", [1, 2], (3,))
    learned_variance = rs.from_eps(lambda x, t: torch.cat([x, x], dim=1), LINEAR)
    with pytest.raises(rs.InputError, match=r"the network returned a tensor \[1, 6, 4, 4\] for states \[1, 3, 4, 4\]"):
        rs.sample(learned_variance, "2", [1], (3, 4, 4))
    with pytest.raises(rs.InputError, match="the network returned a tuple"):
        rs.sample(rs.from_eps(lambda x, t: (x,), LINEAR), "2", [1], (3,))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (LINEAR[None], r"has the shape \[1, 1000\]"),
        (torch.tensor(0.5), r"has the shape \[\]"),
        (LINEAR[:1], r"has the shape \[1\]"),
        ([0.9, 0.5, 0.0], r"alphas_cumprod\[2\] is 0, .*zero terminal SNR leave the last entry out.*\[:-1\]"),
        ([1.0, 0.5, 0.1], r"alphas_cumprod\[0\] is 1, and must lie between 0 and 1"),
        (LINEAR.half(), r"alphas_cumprod\[0\] is 1, .*; at 1 there is no noise; float16 rounds to it, so give float32"),
        ([0.9, 0.0, 0.0], r"alphas_cumprod\[1\] is 0, .*; at 0 there is no data; float16 rounds to it"),
        ([0.9, math.nan, 0.1], r"alphas_cumprod\[1\] is nan, .* between 0 and 1; give the cumulative products of 1 - "),
        ([0.9, -0.1], r"alphas_cumprod\[1\] is -0.1, .* between 0 and 1; give the cumulative products of 1 - beta"),
        (None, "alphas_cumprod is of type NoneType, without T numbers"),
        ("abc", "alphas_cumprod is of type str, without T numbers"),
        ([0.9, None], "alphas_cumprod is of type list, without T numbers"),
        ([0.9, 0.5, 0.5, 0.1], r"alphas_cumprod\[2\] is 0.5, not below the 0.5 before it"),
        (torch.linspace(1e-4, 0.02, 1000), r"alphas_cumprod\[1\] .* products of 1 - beta"),
        (1 - torch.linspace(1e-4, 0.02, 1000), "alphas_cumprod ends at 0.98.*cumulative products"),
    ],
)
def test_a_table_that_is_none_is_refused(table, message):
    for make in MAKE.values():
        with pytest.raises(rs.InputError, match=message):
            make(lambda x, t: x, table)


def test_levels_of_a_table():
    net = rs.from_eps(lambda x, t: x, LINEAR.float().tolist())
    assert net.sigma_min == pytest.approx(SIGMAS[0].item(), rel=1e-3)
    assert net.sigma_max == pytest.approx(SIGMAS[-1].item(), rel=1e-4)
    net = rs.from_eps(lambda x, t: x, [0.9, 0.5, 0.1])
    assert [round(net.round_level(level), 6) for level in (0.01, 0.4, 0.57, 0.58, 1.7, 1.8, 99.0)] == [
        0.333333, 0.333333, 0.333333, 1.0, 1.0, 3.0, 3.0,
    ]  # fmt: skip
    assert net.round_level(0.0) == 0.0
    with pytest.raises(rs.InputError, match="not one of the model's"):
        rs.sample(net, "1 grid=5/0", [1], (3,))
    assert rs.from_eps(lambda x, t: x, LINEAR, continuous=True).round_level(0.123) == 0.123


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (3.0, 3.0), (math.nan, 3.0)])
def test_levels_of_a_denoiser_are_checked(ends):
    with pytest.raises(rs.InputError, match="0 <= sigma_min < sigma_max"):
        rs.from_edm(lambda x, s: x, *ends)
    with pytest.raises(rs.InputError, match="D is 0"):
        rs.from_edm(lambda x, s: x, 0.0, 80.0, D=0)


def test_without_clipping_the_noise_of_a_network_is_magnified():
    """A network that is right up to the rounding of bfloat16, for data in [-1, 1]: at sigma = 20,000 its x0 is not."""
    sigmas = ((1 - COSINE) / COSINE).sqrt()
    data = rs.GaussianMixture(torch.tensor([[0.9, 0.5], [-0.9, 0.2], [0.3, -0.8]], dtype=torch.float64), 0.01)
    network, plan = Predicting("eps", data, sigmas), "1 sigma_max=30000"
    loose = rs.sample(rs.from_eps(network, COSINE, dtype=torch.bfloat16), plan, range(64), (2,))
    kept = rs.sample(rs.from_eps(network, COSINE, dtype=torch.bfloat16, clip=True), plan, range(64), (2,))
    assert loose.abs().max() > 64
    assert kept.abs().max() <= 1 + 1e-9


def test_clipping_is_of_x0():
    x, level = torch.linspace(-3, 3, 8)[None].double(), torch.ones(1, dtype=torch.float64)
    same = rs.from_edm(lambda x, sigma: x, 0.0, 80.0, **DOUBLE)
    assert torch.equal(rs.clipped(same)(x, level), x.clamp(-1, 1))
    for net in (rs.clipped(same, 0, 2), rs.from_edm(lambda x, sigma: x, 0.0, 80.0, clip=(0, 2), **DOUBLE)):
        assert torch.equal(net(x, level), x.clamp(0, 2))
    assert torch.equal(rs.from_flow(lambda x, t: -x, clip=True)(5 + x, level), torch.ones_like(x))
    with pytest.raises(rs.InputError, match=r"clipped to \[1, 0\]"):
        rs.clipped(same, 1, 0)
    with pytest.raises(rs.InputError, match=r"clip is 0\.5; give True"):
        rs.from_flow(lambda x, t: x, clip=0.5)


def test_dynamic_thresholding_is_the_papers():
    x = torch.randn(3, 2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[2] *= 0.1  # within the range: stays as it is
    net = rs.thresholded(rs.from_edm(lambda x, sigma: x, 0.0, 80.0, **DOUBLE), 0.9)
    out = net(x, torch.ones(3, dtype=torch.float64))
    for image, got in zip(x, out, strict=True):
        s = max(1.0, image.abs().flatten().sort().values[89].item())  # 90 of 100 are at most s
        torch.testing.assert_close(got, image.clamp(-s, s) / s)
    assert torch.equal(out[2], x[2])
    assert out.abs().max() == 1
    for quantile in (0.0, 1.1, math.nan):
        with pytest.raises(rs.InputError, match="give a share"):
            rs.thresholded(net, quantile)


def test_a_checkpoint_is_a_net():
    model, plan = rs.load_model("cifar10-small"), "3 [2,1,1.09,3.2]"
    batch = next(rs.generate(model, plan, [0, 1]))
    x = rs.sample(model, plan, [0, 1], (3, 32, 32), class_labels=batch.labels)
    assert torch.equal((x * 127.5 + 128).clip(0, 255).to(torch.uint8), batch.images)
    assert model.identity == sha256(resolve("cifar10-small"))
    assert rs.clipped(model).identity != model.identity


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_unet_of_diffusers_gives_what_its_pipeline_gives(diffusers):
    """DDIM's steps from the same noise, on the timesteps of diffusers' scheduler."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(16, 16), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), num_class_embeds=4,
    ).eval()  # fmt: skip
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(5)
    levels = [((1 - a) / a) ** 0.5 for a in scheduler.alphas_cumprod[scheduler.timesteps].double().tolist()]
    plan = f"5 grid={'/'.join(map(repr, levels))}/0 solver=euler"
    labels = torch.tensor([1, 3])
    nets = [
        rs.from_eps(unet, scheduler.alphas_cumprod),
        rs.from_eps(lambda x, t, **kwargs: unet(x, t, **kwargs).sample, scheduler.alphas_cumprod),
    ]
    outs = [rs.sample(net, plan, [1, 2], (3, 8, 8), class_labels=labels) for net in nets]
    assert torch.equal(*outs)

    x = rs.GaussianNoise([1, 2]).start((3, 8, 8), levels[0]) / (1 + levels[0] ** 2) ** 0.5
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps = unet(x.float(), t, class_labels=labels).sample
            x = scheduler.step(eps.double(), t, x).prev_sample
    torch.testing.assert_close(outs[0], x, rtol=0, atol=1e-4)


def in_place(x, t):
    """The denoiser of standard normal data, which writes over its inputs."""
    variance = 1 + t.clone().reshape(-1, *[1] * (x.ndim - 1)) ** 2
    t.mul_(1000)
    return x.div_(variance)


def test_networks_may_write_into_their_inputs():
    clean = rs.from_edm(lambda x, t: in_place(x.clone(), t.clone()), 0.002, 80, dtype=torch.float64)
    writing = rs.from_edm(in_place, 0.002, 80, dtype=torch.float64)
    for plan in ("8 [3,1,0.5,3]", "8 solver=dpmpp_2m", "8 solver=unipc"):
        expected = rs.sample(clean, plan, range(3), (4,))
        torch.testing.assert_close(rs.sample(writing, plan, range(3), (4,)), expected, rtol=0, atol=0)
        guided = (rs.guided(net, 1.0 + 1e-9, guide=net) for net in (clean, writing))
        first, second = (rs.sample(net, plan, range(3), (4,)) for net in guided)
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    path = rs.Plan.parse("8 [3,1,0.5,3]").path(0.002, 80)
    x = 80 * torch.randn(3, 4, dtype=torch.float64)
    ends = [rs.follow(d, x.clone(), path, perturb=rs.GaussianNoise(range(3))) for d in (clean, in_place)]
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "sa", "ab"])
def test_networks_may_answer_in_the_same_memory_each_time(solver):
    memory = torch.empty(3, 4, dtype=torch.float64)

    def reusing(x, sigma):
        return torch.div(x, 1 + sigma[:, None] ** 2, out=memory)

    nets = (rs.from_edm(d, 0.002, 80, dtype=torch.float64) for d in (reusing, lambda x, s: reusing(x, s).clone()))
    first, second = (rs.sample(net, f"9 solver={solver}", range(3), (4,)) for net in nets)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [rs.clipped, rs.thresholded])
def test_clipping_does_not_hide_an_overflow(wrap):
    net = wrap(rs.from_edm(lambda x, sigma: torch.where(sigma[:, None] > 5, torch.inf, x / 2), 0.002, 80))
    with pytest.raises(InputError, match="the sample of seed 0 is not finite"):
        rs.sample(net, "8", range(2), (4,))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64])
def test_answers_are_real_numbers(dtype):
    net = rs.from_edm(lambda x, sigma: x.to(dtype), 0.002, 80)
    with pytest.raises(InputError, match=f"the network returned numbers of {dtype}; it must return real ones"):
        rs.sample(net, "2", range(2), (4,))
