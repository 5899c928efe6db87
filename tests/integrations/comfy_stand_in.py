"""What the nodes know of ComfyUI, in small: KSAMPLER, a guider, a model, and its two kinds of states."""

import torch

MEAN, STD = 1.0, 0.5


class KSAMPLER:
    """Makes the first state, calls the sampler's function, and passes on what it reports."""

    def __init__(self, sampler_function, extra_options, inpaint_options):
        self.sampler_function, self.extra_options, self.inpaint_options = (
            sampler_function,
            extra_options,
            inpaint_options,
        )

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        masked = Masked(model_wrap, noise, latent_image)
        x = model_wrap.inner_model.model_sampling.noise_scaling(sigmas[0], noise, latent_image)
        return self.sampler_function(
            masked, x, sigmas,
            extra_args={**extra_args, "denoise_mask": denoise_mask},
            callback=lambda seen: callback(seen["i"], seen["denoised"], seen["x"], len(sigmas) - 1),
            disable=disable_pbar,
            **self.extra_options,
        )  # fmt: skip


class Masked:
    """Where the mask is 0, the network sees the latent image at the level, and its answer is that image."""

    def __init__(self, model_wrap, noise, latent_image):
        self.inner_model, self.noise, self.latent_image = model_wrap, noise, latent_image

    def __call__(self, x, sigma, denoise_mask, **arguments):
        if denoise_mask is None:
            return self.inner_model(x, sigma, **arguments)
        level = sigma[:, None, None, None]
        seen = self.inner_model.inner_model.model_sampling.noise_scaling(level, self.noise, self.latent_image)
        x0 = self.inner_model(torch.where(denoise_mask > 0, x, seen), sigma, **arguments)
        return torch.where(denoise_mask > 0, x0, self.latent_image)


class EPS:
    """Data + sigma noise."""

    sigma_min, sigma_max = torch.tensor(0.0292), torch.tensor(14.6146)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return latent_image + sigma * noise


class CONST(EPS):
    """A flow; the first sigma of a schedule can be above 1 by rounding."""

    sigma_min, sigma_max = torch.tensor(0.003), torch.tensor(1.000001)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return (1 - sigma) * latent_image + sigma * noise


class ScaledCONST(CONST):
    """A flow whose noise has the std 1.7, which newer versions of ComfyUI have."""

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return (1 - sigma) * latent_image + sigma * (1.7 * noise)


class Guider:
    """The exact denoiser of N(1, 0.5²), as a sampler's model has it two layers down; counts its calls."""

    def __init__(self, model_sampling):
        self.inner_model, self.calls = self, 0
        self.model_sampling = model_sampling

    def __call__(self, x, sigma, model_options=None, seed=None):
        self.calls += 1
        assert sigma.shape == (len(x),)
        level, one = sigma[:, None, None, None], torch.ones(1)
        alpha = self.model_sampling.noise_scaling(level, 0 * one, one)
        std = self.model_sampling.noise_scaling(level, one, 0 * one)
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + std**2) * (x - alpha * MEAN)

    def get_model_object(self, name):
        """As the MODEL that nodes get."""
        return getattr(self, name)
