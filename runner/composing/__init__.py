"""The command line and conf/ -> experiments. Besides this room only the application and the plugins know Hydra.

job_product    a sweep's axes -> its jobs, each a list of plain overrides
fast_compose   jobs -> plain configs, equal to Hydra's own: shared_config has what jobs share, and lays over it what
               job_overrides has taken apart, by what interpolations and plain_values know of configs
experiment     a plain config -> an Experiment, checked
hydra_sweep    all of that in a row, for the plugins
base_option    base=FILE: axolotl_file reads the file
hydra_inside   what is used of Hydra's internals; hydra_errors has its errors in our words, resolvers our own ${...}
"""
