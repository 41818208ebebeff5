"""How far merged models are from their base: `python logit_distances_script.py BASE [MERGED ADAPTER]...`.

Prints a line for each: the largest difference in any logit from the base with the adapter, and from the base without
it.
"""

from __future__ import annotations

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main(base: str, *pairs: str) -> None:
    ids = torch.arange(3, 40).unsqueeze(0)
    for path, adapter in zip(pairs[::2], pairs[1::2], strict=True):
        merged, adapted, plain = (AutoModelForCausalLM.from_pretrained(one) for one in (path, base, base))
        with torch.no_grad():
            logits = [model(ids).logits for model in (merged, PeftModel.from_pretrained(adapted, adapter), plain)]
        print(*((logits[0] - other).abs().max().item() for other in logits[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
