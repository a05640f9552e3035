"""docs/models.md is written from the table of families.

`UPDATE_GOLDENS=1 pytest tests/llamafactory/test_models_docs.py` rewrites it.
"""

import os

from msr_adapter.llamafactory.families import FAMILIES, UNSUPPORTED, Family
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "models.md"

HEAD = """\
# Models

A model is a local folder or a hub id; everything else about it can be left out:

```yaml
model: {path: Qwen/Qwen2-VL-2B-Instruct, dtype: bfloat16}
```

**The template** is how LLaMA-Factory writes a chat for the model. `template: auto`, the default, finds it from the
model's own files: `model_type` in `config.json`, and where one type has several chat formats, the type of its parts and
its chat template. Local folders and cached hub models are looked at by `msr check`; of others, `msr run` first
downloads these small files. What was found stands in the run's `pipeline.json`, in the training YAML and in every
fingerprint. A template that is not the model's own is refused, with the right one named: with it, a model would be
asked in a format that it has never seen, and nothing would say so.

**Tested families.** The tests build each as a tiny random model and train it with the YAML that msr writes. The tokens
that LLaMA-Factory trained are compared with those that are scored, row by row, for 200 rows with hostile titles, with
and without images; scores with a plain forward pass, texts with plain greedy decoding. Weights of real size are no
part of the tests. (This table is written from `msr_adapter/llamafactory/families.py`.)

"""

TAIL = """
- **answer**: the first tokens of Yes and No, which training teaches and scoring reads. They are looked up in its
  own tokenizer; where both answers begin with the same token (a blank), it belongs to the prompt that is scored.
- **image**: the tokens that one takes of the context. Where they follow from the size, `image_max_pixels` is the
  budget; where their number is fixed, it saves reading time alone. LLaVA-NeXT shows an image whole and again in tiles:
  at the default budget a square one takes 2,928 tokens, with `image_max_pixels: 112896` (336 x 336) 1,176, and a shape
  unlike any tiling up to 1,944. Give it a `train.cutoff_len` of 4096; the length estimate says what the rows need.
- **LoRA** (`train.lora.target: all`): every linear layer of the language model gets an adapter, in every family; the
  vision tower and the projector stay as they are.
- **dtype**: `bfloat16` for all of them on a GPU.
- **kernels**: Liger's are on by default on GPUs, for `sft` of all but Qwen3-VL, LLaVA-NeXT and InternVL, for which
  LLaMA-Factory has none ([training](training.md)). flash-attention 2 is for none of them with transformers 5.6.0.

Another model works too if LLaMA-Factory has a template for it: name it in `template`. `msr check` says that its family
is not tested. Templates that put a thought before every answer are refused, as Yes or No would never come first; some
have a variant without: `qwen3_nothink`. A model behind a server (`backend: server`) has no template here.

"""

HEADINGS = ("family", "for example", "`model_type`", "template", "image", "answer", "positions", "to know")


def page() -> str:
    rows = "".join(f"| {' | '.join(row(family))} |\n" for family in FAMILIES)
    table = f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|\n{rows}"
    refused = "".join(f"- `{name}`: {why}.\n" for name, why in UNSUPPORTED.items())
    return f"{HEAD}{table}{TAIL}Refused, by the architecture in `config.json`:\n\n{refused}"


def row(family: Family) -> tuple[str, ...]:
    kind = f"`{family.model_type}`" + (f", text `{family.text_type}`" if family.text_type else "")
    limits = [f"{what}: {why}" for what, why in family.limits.items()] + ([family.note] if family.note else [])
    positions = "M-RoPE" if family.mrope else "counted"
    answer = ", ".join(f"`{token}`" for token in family.answer)
    return (
        family.name, f"`{family.example}`", kind, f"`{family.template}`", image(family), answer, positions,
        "; ".join(limits),
    )  # fmt: skip


def image(family: Family) -> str:
    if family.token_side:
        return f"one token per {family.token_side} x {family.token_side} pixels"
    if not family.image_tokens:
        return "none: text only"
    return f"{'' if family.exact else 'at most '}{family.image_tokens:,} tokens"


def test_the_page_is_what_the_table_says() -> None:
    if "UPDATE_GOLDENS" in os.environ:
        DOCUMENT.write_text(page(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == page()
