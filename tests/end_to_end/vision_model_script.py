"""Makes a tiny vision model: `python vision_model_script.py TINY FOLDER`, with the trainer's Python.

A LLaVA of transformers' own classes: two layers of CLIP with random weights before the language model of the tiny
model, likewise random, with its tokenizer. Its processor needs only Pillow.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoConfig, AutoTokenizer, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.processing_llava import LlavaProcessor

IMAGE = "<image>"
SIZE, PATCH = 28, 14


def main(tiny: str, folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    text = AutoConfig.from_pretrained(tiny)
    text.vocab_size = len(tokenizer)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIZE, patch_size=PATCH, projection_dim=32,
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, image_token_id=image,
        image_seq_length=(SIZE // PATCH) ** 2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
