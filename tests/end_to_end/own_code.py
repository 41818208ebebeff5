"""A folder with a GRPO config and the user's own Python next to it: rewards, a dataset format and a plugin."""

from __future__ import annotations

import textwrap
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PLUGIN = "my_plugin.Note"
FILES = {
    "rewards.py": """
        from lengths import LIMIT

        def short(prompts, completions, **_):
            return [1 - len(str(one)) / LIMIT for one in completions]

        def to_prompt(cfg, **_):
            def transform(row):
                return {"prompt": row["messages"][:-1]}
            return transform, {"remove_columns": ["messages"]}
        """,
    "lengths.py": "LIMIT = 100\n",
    "my_plugin/__init__.py": "from my_plugin.hooks import Note\n",
    "my_plugin/hooks.py": """
        from pathlib import Path
        from axolotl.integrations.base import BasePlugin

        class Note(BasePlugin):
            def post_trainer_create(self, cfg, trainer):
                trainer.args.logging_first_step = True
                print("The word is", (Path(__file__).parent / "word.txt").read_text())
        """,
    "my_plugin/word.txt": "hello",
    "formats/directory.py": """
        from axolotl.prompt_strategies.chat_template import load as load_chat

        def load(tokenizer, cfg, ds_cfg=None):
            return load_chat(tokenizer, cfg, {**(ds_cfg or {}), "type": "chat_template"})
        """,
    "unrelated.py": "1 / 0\n",
}

UNFORESEEN = "what no check can foresee"


def write_failing_plugin(folder: Path) -> str:
    """A plugin with which a run fails when it has begun. Returns its name."""
    text = f"""
        from axolotl.integrations.base import BasePlugin

        class Refusal(BasePlugin):
            def post_trainer_create(self, cfg, trainer):
                raise RuntimeError({UNFORESEEN!r})
        """
    (folder / "refusal.py").write_text(textwrap.dedent(text))
    return "refusal.Refusal"


def write_slow_plugin(folder: Path) -> str:
    """A plugin with which a step takes longer, and no more CPU: time enough for a test to act in the middle of a
    training. Returns its name."""
    text = """
        import time

        from axolotl.integrations.base import BasePlugin
        from transformers import TrainerCallback

        class Pause(TrainerCallback):
            def on_step_end(self, *_, **__):
                time.sleep(0.05)

        class Slow(BasePlugin):
            def add_callbacks_post_trainer(self, cfg, trainer):
                return [Pause()]
        """
    (folder / "slow.py").write_text(textwrap.dedent(text))
    return "slow.Slow"


def write_own_code(folder: Path, **keys: object) -> Path:
    """The config. `keys`: more of Axolotl's."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    config = yaml.safe_load((ROOT / "tests/good_configs/tiny_on_cpu.yml").read_text(encoding="utf-8"))
    for name in ("val_set_size", "eval_steps", "save_steps", "output_dir", "dataset_prepared_path"):
        del config[name]
    rows = {"path": str(ROOT / "tiny/data/train.jsonl"), "ds_type": "json", "split": "train[:16]"}
    rewards = {"reward_funcs": ["rewards.short"], "num_generations": 4, "max_completion_length": 8}
    config |= {
        "base_model": str(ROOT / "tiny/model"),
        "datasets": [{**rows, "type": "rewards.to_prompt"}],
        "rl": "grpo",
        "trl": rewards,
        "micro_batch_size": 4,
        "max_steps": 2,
        **keys,
    }
    (folder / "grpo.yml").write_text(yaml.safe_dump(config))
    return folder / "grpo.yml"
