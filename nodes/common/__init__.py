"""What every node with long work needs: calibrations, comparisons, AMED trainings and tunings.

    guided           ComfyUI's model, conditioning and guidance as the denoiser that `fitting` asks for
    differentiable   gradients through a model inside the host's inference mode
    teacher          settings of the many-step run, and where its passes are stored
    identity         whether a model and its conditioning are the same another time
    facts            what a recipe says about its origin, and whether it fits a model
    sockets          socket types, and inputs that several nodes have
    long_work        a job as the work of a node: what is sampled, and how it ends
    progress         the bar, its preview or chart, the text, and the interrupt
    bars             errors of candidates as a bar chart
"""
