"""A Hydra application that does nothing, for another launcher to run."""

import hydra


@hydra.main(version_base=None, config_path=None)
def main(config: object) -> float:
    return 0.0


if __name__ == "__main__":
    main()
