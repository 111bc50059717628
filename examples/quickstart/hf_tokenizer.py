"""A byte-level BPE tokenizer in Hugging Face format with Qwen2's normaliser and pre-tokenizer."""

import json

BASE_TOKENS = 2997
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# Qwen2's rule for where a merge may never cross.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# The first turns of Qwen2.5's own template; enough for a chat without tools.
CHAT_TEMPLATE = ("{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + "
                 "'<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
                 "{{- '<|im_start|>assistant\\n' }}{%- endif %}")


def train(texts):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    made.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    made.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=BASE_TOKENS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(texts, trainer)
    # Added after training, so that their ids follow the vocabulary's, as in Qwen2.
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made


def files(texts):
    """Yields (file name, bytes, number of tokens) of all that a Hugging Face tokenizer directory holds."""
    made = train(texts)
    size = made.get_vocab_size()
    whole = json.loads(made.to_str())
    # One form of the merges for every reader: older ones do not know the list of pairs.
    merges = [m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]]
    whole["model"]["merges"] = merges
    vocabulary = dict(sorted(whole["model"]["vocab"].items(), key=lambda pair: pair[1]))
    whole["model"]["vocab"] = vocabulary
    added = {
        str(made.token_to_id(token)): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                                       "single_word": False, "special": True}
        for token in SPECIAL
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 512,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }

    def pretty(value):
        return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()

    yield "tokenizer.json", pretty(whole), size
    yield "tokenizer_config.json", pretty(config), size
    yield "vocab.json", json.dumps(vocabulary, ensure_ascii=False).encode(), size
    yield "merges.txt", ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(), size
