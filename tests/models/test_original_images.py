"""Images of the golden networks under --noise edm are those of the original scripts (see golden/make_images.py)."""

import numpy as np
import pytest
import torch
from edm_files import GOLDEN, network, pickled, snapshot

import restart_sampling as rs
from restart_sampling.generation.net_drawing import NetDrawing


@pytest.mark.parametrize("name", ["edm_adm_cond", "vp_ddpmpp", "ve_ncsnpp", "iddpm_adm_cond"])
def test_images_are_the_originals_in_every_pixel(name, tmp_path):
    """Restart's script for EDM, VP and VE, EDM's for iDDPM, whose equal levels it asks twice."""
    with np.load(GOLDEN / "images_original.npz") as file:
        seeds, plan, levels, images = (
            file[key] for key in ("seeds", *(f"{name}/{x}" for x in ("plan", "levels", "images")))
        )
    (tmp_path / "model.pkl").write_bytes(pickled(snapshot(network(name))))
    net, asked = rs.load_model(tmp_path / "model.pkl"), []
    net.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1][0].item()))
    drawing = NetDrawing(net, str(plan), noise="edm")
    [batch] = drawing.draw(seeds.tolist())
    assert np.array_equal(batch.images.numpy(), images)
    np.testing.assert_allclose(asked, levels, rtol=1e-6)
    assert drawing.nfe == len(levels)


def test_the_published_sampler_of_imagenet_makes_511_evaluations_on_a_table_of_levels(tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickled(snapshot(network("iddpm_adm_cond"))))
    drawing = NetDrawing(rs.load_model(tmp_path / "model.pkl"), "imagenet64-adm-sde-511", noise="edm")
    falls = [move for move in drawing.path.moves if not move.rises]
    assert (drawing.nfe, len(falls)) == (511, 256)
    assert any(move.now == move.then for move in falls)


def test_levels_are_rounded_as_edm_rounds_them(tmp_path):
    """In float32, where a level in the middle of two goes to either: 17 of these 20,000 not to the nearest."""
    with np.load(GOLDEN / "images_original.npz") as file:
        expected = torch.from_numpy(file["iddpm_adm_cond/rounded"])  # how many to each entry of the table
    (tmp_path / "model.pkl").write_bytes(pickled(snapshot(network("iddpm_adm_cond"))))
    net = rs.load_model(tmp_path / "model.pkl")
    rounded = net.round_sigma(torch.linspace(-5, 4, 20_000, dtype=torch.float64).exp())
    assert torch.equal((rounded[:, None] == net.u).sum(dim=0), expected.long())
