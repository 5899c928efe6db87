"""Guidance of any net, against its formulas."""

import math

import pytest
import torch

import restart_sampling as rs
from exact import mixture
from restart_sampling.sampling.net_plan import net_path

DOUBLE = {"dtype": torch.float64}
X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LEVELS = torch.tensor([0.1, 0.5, 2.0, 20.0], dtype=torch.float64)
SHIFT = torch.tensor([[0.5], [0.2], [-0.3], [0.0]])


class Conditional:
    """An exact denoiser whose answer is shifted by its condition; notes the batch of each call."""

    def __init__(self, **settings):
        self.calls = []
        self.net = rs.from_edm(self, 0.002, 80.0, **DOUBLE, **settings)

    def __call__(self, x, sigma, shift, factor=1.0):
        self.calls.append(len(x))
        return factor * mixture()(x, sigma) + shift


@pytest.fixture
def network():
    return Conditional()


def formula(network, scale, x=X, levels=LEVELS):
    guide, wanted = network.net(x, levels, shift=0 * SHIFT), network.net(x, levels, shift=SHIFT)
    network.calls.clear()
    return guide + scale * (wanted - guide), guide, wanted


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("batched", [True, False])
def test_classifier_free_guidance_is_its_formula(network, scale, batched):
    expected, _, _ = formula(network, scale)
    net = rs.guided(
        network.net, scale, conditional={"shift": SHIFT}, unconditional={"shift": torch.zeros(1, 1)}, batched=batched
    )
    torch.testing.assert_close(net(X, LEVELS), expected)
    assert network.calls == ([8] if batched else [4, 4])
    assert net.evaluations(1.0) == 2


def test_the_condition_can_come_with_each_call(network):
    expected, _, _ = formula(network, 2.0)
    net = rs.guided(network.net, 2.0, unconditional={"shift": 0 * SHIFT})
    torch.testing.assert_close(net(X, LEVELS, shift=SHIFT, factor=1.0), expected)
    double = network.net(X, LEVELS, shift=SHIFT, factor=2.0) * 2 - network.net(X, LEVELS, shift=0 * SHIFT, factor=2.0)
    torch.testing.assert_close(net(X, LEVELS, shift=SHIFT, factor=2.0), double)
    out = rs.sample(net, "4", range(4), (3,), shift=SHIFT)
    assert torch.equal(out, rs.sample(rs.guided(net, 1.0, unconditional={}), "4", range(4), (3,), shift=SHIFT))


def test_scale_one_is_one_plain_call(network):
    _, _, wanted = formula(network, 1.0)
    net = rs.guided(network.net, 1.0, conditional={"shift": SHIFT}, unconditional={"shift": 0 * SHIFT})
    assert torch.equal(net(X, LEVELS), wanted)
    assert network.calls == [4]
    assert net.evaluations(1.0) == 1


@pytest.mark.parametrize("batched", [True, False])
def test_an_interval_of_levels(network, batched):
    """On above low, up to high, for each image by its level; where it is off for all, one evaluation."""
    expected, _, wanted = formula(network, 3.0)
    settings = {"conditional": {"shift": SHIFT}, "unconditional": {"shift": 0 * SHIFT}, "batched": batched}
    net = rs.guided(network.net, 3.0, interval=(0.1, 2.0), **settings)
    torch.testing.assert_close(net(X, LEVELS), torch.cat([wanted[:1], expected[1:3], wanted[3:]]))
    assert [net.evaluations(level) for level in LEVELS.tolist()] == [1, 2, 2, 1]
    network.calls.clear()
    assert torch.equal(net(X, LEVELS + 10), network.net(X, LEVELS + 10, shift=SHIFT))
    assert network.calls == [4, 4]
    above = rs.guided(network.net, 3.0, interval=(0.1, math.inf), **settings)
    network.calls.clear()
    assert torch.equal(above(X, LEVELS / 1000), network.net(X, LEVELS / 1000, shift=SHIFT))
    assert network.calls == [4, 4]


def test_autoguidance_is_its_formula(network):
    worse = rs.from_edm(lambda x, sigma, shift: 0.9 * mixture()(x, sigma) - shift, 0.01, 50.0, **DOUBLE)
    net = rs.guided(network.net, 2.5, guide=worse, interval=(0.2, 90.0))
    guide, wanted = worse(X, LEVELS, shift=SHIFT), network.net(X, LEVELS, shift=SHIFT)
    expected = guide + 2.5 * (wanted - guide)
    expected[0] = wanted[0]
    torch.testing.assert_close(net(X, LEVELS, shift=SHIFT), expected)
    bound = rs.guided(network.net, 2.5, guide=worse, interval=(0.2, 90.0), conditional={"shift": SHIFT})
    torch.testing.assert_close(bound(X, LEVELS), expected)
    assert (net.sigma_min, net.sigma_max) == (0.01, 50.0)
    both = rs.guided(network.net, 2.5, guide=worse, unconditional={"shift": 0 * SHIFT})
    torch.testing.assert_close(both(X, LEVELS, shift=SHIFT), 2.5 * wanted - 1.5 * worse(X, LEVELS, shift=0 * SHIFT))


def test_guidance_of_guidance(network):
    inner = rs.guided(network.net, 2.0, unconditional={"shift": 0 * SHIFT}, interval=(0.3, 5.0))
    net = rs.guided(inner, 3.0, guide=mixture_net())
    assert [net.evaluations(level) for level in LEVELS.tolist()] == [2, 3, 3, 2]
    guide = mixture()(X, LEVELS)
    torch.testing.assert_close(net(X, LEVELS, shift=SHIFT), guide + 3 * (inner(X, LEVELS, shift=SHIFT) - guide))


def mixture_net():
    return rs.from_edm(lambda x, sigma, shift: mixture()(x, sigma), 0.002, 80.0, **DOUBLE)


def test_a_flow_is_guided_too():
    def network(x, t, shift):
        return (x - mixture(rs.FLOW)(x, t)) / t[:, None] - shift

    net = rs.from_flow(network, **DOUBLE)
    both = rs.guided(net, 2.0, unconditional={"shift": 0 * SHIFT})
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(both(X, t, shift=SHIFT), mixture(rs.FLOW)(X, t) + 2 * t[:, None] * SHIFT)
    assert both.process == rs.FLOW


def test_identities_tell_guidance_apart():
    def named(identity):
        return rs.from_edm(lambda x, s: x, 0.0, 80.0, identity=identity)

    a, b = named("a"), named("b")
    nets = [
        a,
        rs.guided(a, 2.0, guide=b),
        rs.guided(a, 3.0, guide=b),
        rs.guided(b, 2.0, guide=a),
        rs.guided(a, 2.0, guide=b, interval=(0.1, 1.0)),
        rs.guided(a, 2.0, unconditional={"y": torch.zeros(2)}),
        rs.guided(a, 2.0, unconditional={"y": torch.ones(2)}),
        rs.guided(a, 2.0, unconditional={"y": 1}),
        rs.guided(a, 2.0000001, unconditional={"y": 1}),
        *(
            rs.guided(a, 2.0, unconditional={"y": make(values)})
            for values in (torch.zeros(2000), torch.eye(2000)[1000])
            for make in (lambda t: t, lambda t: t.numpy(), lambda t: [t], lambda t: {"z": (t.numpy(),)})
        ),
    ]
    assert len({net.identity for net in nets}) == len(nets)
    assert rs.guided(a, 2.0, guide=named(None)).identity is None
    assert rs.guided(named(None), 2.0, guide=a).identity is None
    assert rs.guided(a, 2.0, unconditional={"y": [object()]}).identity is None


def test_what_cannot_guide_is_refused(network):
    net, labels = network.net, {"shift": SHIFT}
    flow = rs.from_flow(lambda x, t: x)
    pfgmpp = rs.from_edm(lambda x, s: x, 0.0, 80.0, D=8)
    for arguments, message in (
        ({}, r"nothing to guide by; .*unconditional=\{\.\.\.\}.*guide="),
        ({"guide": flow}, "the guide has the process FLOW and D None, the net VE and None"),
        ({"guide": pfgmpp}, "the guide has the process VE and D 8, the net VE and None"),
        ({"unconditional": labels, "interval": (2.0, 2.0)}, "between the levels 2 and 2 is nowhere"),
        ({"unconditional": labels, "interval": (80, 90)}, "80 and 90 is nowhere; .*, which go from 0.002 to 80"),
        ({"unconditional": labels, "interval": (0.0, 0.001)}, "0 and 0.001 is nowhere"),
        ({"unconditional": labels, "interval": (0.1, 1.0, 2.0)}, r"is \(0\.1, 1\.0, 2\.0\); give two levels"),
        ({"unconditional": labels, "interval": ("0.1", 1.0)}, "interval of guidance = '0.1'; give a number"),
    ):
        with pytest.raises(rs.InputError, match=message):
            rs.guided(net, 2.0, **arguments)
    for make, message in (
        (lambda: rs.guided(net, 2.0, guide=torch.nn.Linear(3, 3)), "the guide is a Linear; make one of a network"),
        (lambda: rs.guided(lambda x, s: x, 2.0, unconditional=labels), "the net is a function; make one of a network"),
        (lambda: rs.guided(flow, 2.0, guide=flow, interval=(1.5, 5.0)), "levels, which go from 0 to 1$"),
        (lambda: rs.guided(net, "2", unconditional=labels), "the guidance scale = '2'; give a number"),
    ):
        with pytest.raises(rs.InputError, match=message):
            make()
    with pytest.raises(rs.InputError, match="scale is nan"):
        rs.guided(net, math.nan, unconditional=labels)
    with pytest.raises(TypeError, match="unconditionl"):
        rs.guided(net, 2.0, unconditionl=labels)


@pytest.mark.parametrize("unconditional", [None, 0.0, torch.zeros(3, 1), torch.zeros(4, 2), torch.tensor(0.0)])
def test_arguments_that_make_no_batch_are_refused(network, unconditional):
    net = rs.guided(network.net, 2.0, unconditional={"shift": unconditional})
    with pytest.raises(rs.InputError, match=r"the argument shift .* of one shape, \[4, ...\] or \[1, ...\]"):
        net(X, LEVELS, shift=SHIFT)


def test_an_argument_of_the_call_is_not_given_as_conditional_too(network):
    """The call's was ignored."""
    for unconditional in ({"shift": 0 * SHIFT}, {"factor": 1.0}):
        net = rs.guided(network.net, 2.0, conditional={"shift": SHIFT}, unconditional=unconditional)
        with pytest.raises(rs.InputError, match="the argument shift is given both as conditional and in the call"):
            rs.sample(net, "2", range(4), (3,), shift=SHIFT)


@pytest.mark.parametrize("rows", [4, 1])
def test_tensors_of_both_calls_are_doubled_wherever_they_are(rows):
    def network(x, sigma, shift, plain, extra):
        assert (extra["words"], extra["both"][1]) == (["a", "b"], 3)
        assert len(plain) == len(extra["row"]) == len(extra["both"][0]) == len(x)
        return mixture()(x, sigma) + shift + plain + 2 * extra["row"] + 3 * extra["both"][0]

    def answer(batched, *tensors):
        net = rs.from_edm(network, 0.002, 80.0, **DOUBLE)
        net = rs.guided(net, 2.0, conditional={"shift": SHIFT}, unconditional={"shift": 0 * SHIFT}, batched=batched)
        plain, row, both = tensors
        return net(X, LEVELS, plain=plain, extra={"row": row, "both": (both, 3), "words": ["a", "b"]})

    tensors = torch.randn(3, rows, 1).unbind()
    torch.testing.assert_close(answer(True, *tensors), answer(False, *(each.expand(4, 1) for each in tensors)))


def test_what_is_in_an_argument_and_makes_no_batch_is_refused(network):
    net = rs.guided(network.net, 2.0, unconditional={"shift": 0 * SHIFT})
    for extra, named in (
        ({"a": torch.zeros(3)}, r"extra\['a'\]"),
        ([SHIFT, torch.zeros(3)], r"extra\[1\]"),
        (SHIFT.numpy(), "extra"),
    ):
        with pytest.raises(rs.InputError, match=rf"the argument {named} of the unconditional .* cannot make one batch"):
            net(X, LEVELS, shift=SHIFT, extra=extra)


@pytest.mark.parametrize(("given", "other"), [("unconditional", "conditional"), ("conditional", "unconditional")])
def test_an_argument_of_one_call_alone_is_named_with_the_other(network, given, other):
    net = rs.guided(network.net, 2.0, **{given: {"shift": SHIFT, "extra": None}, other: {}})
    with pytest.raises(rs.InputError, match=f"shift is given to the {given} call alone; give the {other} one its own"):
        net(X, LEVELS)


def table_net(alphas_cumprod, **settings):
    """A net of a table, exact at each of its levels."""
    sigmas = [((1 - a) / a) ** 0.5 for a in alphas_cumprod]

    def network(x_t, t):
        sigma = torch.tensor(sigmas, dtype=torch.float64)[t]
        return mixture()(x_t * (1 + sigma[:, None] ** 2).sqrt(), sigma)

    return rs.from_x0(network, alphas_cumprod, **DOUBLE, **settings)


TABLE = [0.99 * 0.7**t for t in range(14)]


def test_levels_are_those_of_the_net_and_of_the_guide():
    """On the levels of the net alone samples were 0.38 off."""
    exact, discrete = rs.from_edm(mixture(), 0.002, 80.0, **DOUBLE), table_net(TABLE)
    for net, guide in ((exact, discrete), (discrete, exact), (discrete, table_net(TABLE[:-2]))):
        both = rs.guided(net, 2.0, guide=guide)
        path = net_path(both, rs.Plan.parse("6 [3,1,0.4,2]"))
        assert {discrete.round_level(level) for level in path.levels} == set(path.levels)
        out = rs.sample(both, "6 solver=euler", range(4), (3,))
        follows = net_path(both, rs.Plan.parse("6 solver=euler"))
        noise = rs.GaussianNoise(range(4))
        expected = rs.follow(mixture(), noise.start((3,), follows.levels[0]), follows, rs.Euler(), perturb=noise)
        torch.testing.assert_close(out, expected)


def test_a_guide_of_other_levels_is_refused():
    net, other = table_net(TABLE), table_net([0.9 * a for a in TABLE])
    with pytest.raises(rs.InputError, match=r"level .* is .* to the net and .* to the guide; give a guide of the same"):
        rs.sample(rs.guided(net, 2.0, guide=other), "6", [1], (3,))
    narrow = torch.tensor(TABLE, dtype=torch.float32)  # the same levels, rounded
    rs.sample(rs.guided(net, 2.0, guide=table_net(narrow.tolist())), "6", [1], (3,))


def test_arguments_that_are_no_tensors_are_those_of_both(network):
    net = rs.guided(network.net, 2.0, unconditional={"shift": 0 * SHIFT, "factor": 0.5})
    with pytest.raises(rs.InputError, match="the argument factor"):
        net(X, LEVELS, shift=SHIFT, factor=1.0)
    net(X, LEVELS, shift=SHIFT, factor=0.5)
