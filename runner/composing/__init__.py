"""The command line and conf/ -> experiments. Only this folder, the application and the plugins import Hydra.

read_axes      overrides -> axes, the values in axes.py; search_node checks search=
points         overrides and search= -> jobs, each a list of plain overrides: job_product makes every combination of the
               axes, draw takes points from sobol's sequence
fast_compose   jobs -> plain configs, equal to Hydra's own: shared_config composes what jobs share and sets each job's
               values in it; job_overrides parses these; interpolations and plain_values work on plain configs
experiment     a plain config -> an Experiment, checked
compose_jobs   these steps for all jobs of a sweep, with their problems in one error
hydra_sweep    all of it in order, for the plugins
base_option    base=FILE: axolotl_file reads the file
hydra_inside   every use of Hydra's internals; hydra_errors explains its errors, resolvers adds our own ${...}
"""
