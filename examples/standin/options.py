"""The training script's flags as far as the stand-in takes them; any other is refused by name.

Parsed by hand: argparse alone would take a fifth of the start-up budget.
"""

import math
import sys

INTEGERS = {
    "--tensor-model-parallel-size": 1, "--pipeline-model-parallel-size": 1, "--num-layers": 4, "--hidden-size": 128,
    "--ffn-hidden-size": 352, "--num-attention-heads": 8, "--num-query-groups": 1, "--max-position-embeddings": 512,
    "--seq-length": 128, "--micro-batch-size": 1, "--global-batch-size": 1, "--make-vocab-size-divisible-by": 128,
    "--padded-vocab-size": 0, "--train-iters": 0, "--log-interval": 1, "--save-interval": 0, "--eval-interval": 1000,
    "--eval-iters": 0, "--seed": 1234, "--ckpt-step": None, "--recompute-num-layers": None, "--lr-decay-iters": None,
    "--lr-warmup-iters": None, "--num-workers": 2, "--rotary-base": 10000, "--num-layers-per-virtual-pipeline-stage": None,
}
NUMBERS = {
    "--norm-epsilon": 1e-5, "--attention-dropout": 0.1, "--hidden-dropout": 0.1, "--lr": 0.0, "--min-lr": 0.0,
    "--lr-warmup-fraction": 0.0, "--init-method-std": 0.02, "--weight-decay": 0.01, "--clip-grad": 1.0,
    "--adam-beta1": 0.9, "--adam-beta2": 0.999, "--initial-loss-scale": 1.0,
    "--step-ms": 200.0, "--first-loss": None, "--collective-timeout": 30.0,
}
TEXTS = {
    "--normalization": "LayerNorm", "--position-embedding-type": "learned_absolute", "--tokenizer-type": None,
    "--tokenizer-name-or-path": None, "--lr-decay-style": "linear", "--data-path": None, "--split": "969,30,1",
    "--distributed-backend": "nccl", "--load": None, "--save": None, "--ai-framework": "pytorch", "--ckpt-format": "torch",
    "--recompute-granularity": None, "--recompute-method": None, "--data-cache-path": None, "--transformer-impl": "local",
    "--num-layer-list": None, "--tensorboard-dir": None, "--record": None,
}
SWITCHES = {
    "--use-mcore-models", "--sequence-parallel", "--disable-bias-linear", "--add-qkv-bias", "--group-query-attention",
    "--use-flash-attn", "--swiglu", "--use-fused-swiglu", "--use-fused-rmsnorm", "--use-fused-rotary-pos-emb",
    "--untie-embeddings-and-output-weights", "--no-gradient-accumulation-fusion", "--no-masked-softmax-fusion",
    "--attention-softmax-in-fp32", "--bf16", "--fp16", "--no-load-optim", "--no-load-rng", "--no-save-optim",
    "--no-save-rng", "--log-throughput", "--exit-signal-handler", "--exit-on-missing-checkpoint", "--finetune",
    "--no-shared-storage", "--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather",
    "--recompute-activations", "--use-checkpoint-args", "--fail-always",
}
HOW = ("kill", "hang", "exception", "torn")


def name(flag):
    return flag[2:].replace("-", "_")


def parse(words):
    """The options that `words` give; ends the process with code 2 on what it does not know."""
    given = Options()
    words = list(words)
    while words:
        word, equals, value = words.pop(0).partition("=")
        if word in SWITCHES and not equals:
            setattr(given, name(word), True)
            continue
        if word not in given.kinds and word != "--fail":
            refuse("unrecognized argument: `%s`" % word)
        if not equals:
            if not words:
                refuse("argument `%s` expects a value" % word)
            value = words.pop(0)
        if word == "--fail":
            given.fail.append(failure(value))
            continue
        try:
            setattr(given, name(word), given.kinds[word](value))
        except ValueError:
            refuse("argument `%s`: `%s` is not a number" % (word, value))
    for flag in ("--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--micro-batch-size",
                 "--global-batch-size", "--log-interval"):
        if getattr(given, name(flag)) < 1:
            refuse("argument `%s` must be at least 1" % flag)
    return given


def failure(value):
    """RANK:ITERATION:HOW as (rank, iteration, how), where how is `exitN`, `kill`, `hang`, `exception` or `torn`."""
    parts = value.split(":", 2)
    if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
        how = parts[2].replace(" ", "")
        if how in HOW or how[:4] == "exit" and how[4:].isdigit() and int(how[4:]) < 256:
            return int(parts[0]), int(parts[1]), how
    refuse("argument `--fail`: `%s` is not RANK:ITERATION:exitN|kill|hang|exception|torn" % value)


def refuse(text):
    print("pretrain_gpt.py: error: %s" % text, file=sys.stderr, flush=True)
    sys.exit(2)


class Options:
    kinds = {**dict.fromkeys(INTEGERS, int), **dict.fromkeys(NUMBERS, float), **dict.fromkeys(TEXTS, str)}

    def __init__(self):
        self.fail = []
        for table in (INTEGERS, NUMBERS, TEXTS, dict.fromkeys(SWITCHES, False)):
            for flag, value in table.items():
                setattr(self, name(flag), value)

    def random_loss(self):
        """What a model that knows nothing loses per token."""
        return math.log(self.padded_vocab_size)

    def parameters(self):
        layer = self.hidden_size * (4 * self.hidden_size + 3 * self.ffn_hidden_size)
        return self.num_layers * layer + 2 * self.padded_vocab_size * self.hidden_size

    def learning_rate(self, iteration):
        """Linear warm-up, then the cosine from lr down to min-lr at the last iteration."""
        warm = self.lr_warmup_fraction * self.train_iters
        if iteration <= warm:
            return self.lr * iteration / warm
        gone = (iteration - warm) / max(1.0, self.train_iters - warm)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, gone)))

    def checkpoint_args(self, iteration):
        """The plain values that a loader compares or goes on with."""
        kept = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "seq_length",
                "max_position_embeddings", "padded_vocab_size", "tensor_model_parallel_size",
                "pipeline_model_parallel_size", "global_batch_size", "micro_batch_size", "train_iters", "seed")
        args = {key: getattr(self, key) for key in kept}
        args.update(add_position_embedding=True, iteration=iteration,
                    consumed_train_samples=iteration * self.global_batch_size, consumed_valid_samples=0)
        return args
