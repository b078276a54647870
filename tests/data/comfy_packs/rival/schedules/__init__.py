OWNER = "rival"


def rival_sigmas(model_sampling, steps):
    import torch

    return torch.linspace(float(model_sampling.sigma_max), 0, steps + 1)
