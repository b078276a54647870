"""FewStep in Stable Diffusion WebUI: AUTOMATIC1111, Forge, reForge, Forge Classic.

`scripts/fewstep.py` loads this folder's package once per start of the user interface and calls `entry.start`. The rest:

    names, choices, job      entries of the dropdowns, what the panel chose, and for which picture
    levels                   the noise schedule behind the host's denoiser
    schedules, samplers      what the entries do; they need no host to be imported
    registry                 the entries in the host's lists
    script, plot, xyz, ...   panel, settings, grid axes, calibration; these need the host's `modules`
"""
