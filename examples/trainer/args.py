"""The command line: MindSpeed-LLM's flag names, read by what this trainer can do.

Three kinds of flags exist. *Used* ones change the computation. *Accepted*
ones choose an implementation (fused kernels, recomputation, a communication
backend) and cannot change the result here, so they are read and have no
effect. *Bound* ones are accepted with the one value this trainer implements
and refused by name with any other. Everything else is refused by name too.
"""

import argparse

# Choices of implementation: same mathematics, so no effect on a CPU in float32.
ACCEPTED_SWITCHES = """
    use-mcore-models sequence-parallel use-flash-attn use-fused-swiglu use-fused-rmsnorm
    use-fused-rotary-pos-emb no-gradient-accumulation-fusion no-masked-softmax-fusion
    attention-softmax-in-fp32 recompute-activations recompute-activation-function
    recompute-norm recompute-in-advance enable-recompute-layers-per-pp-rank
    no-shared-storage overlap-grad-reduce overlap-param-gather reuse-fp32-param
    no-rope-fusion no-bias-swiglu-fusion no-bias-gelu-fusion no-create-attention-mask-in-dataloader
    auto-detect-ckpt-format no-check-for-nan-in-loss-and-grad
""".split()
ACCEPTED_VALUES = """
    max-position-embeddings recompute-granularity recompute-method recompute-num-layers
    recompute-modules recompute-activation-function-num-layers recompute-norm-num-layers
    initial-loss-scale distributed-backend ai-framework tokenizer-type tokenizer-name-or-path
    tokenizer-model vocab-size data-cache-path num-workers eval-interval local-rank
    transformer-impl distributed-timeout-minutes dataloader-type log-dir
""".split()
# Flag -> the one value that is implemented.
BOUND = {
    "normalization": "RMSNorm",
    "position-embedding-type": "rope",
    "attention-dropout": 0.0,
    "hidden-dropout": 0.0,
    "eval-iters": 0,
    "optimizer": "adam",
    "ckpt-format": "torch",
    "context-parallel-size": 1,
    "expert-model-parallel-size": 1,
}
# What Megatron assumes when the flag is absent: absence must not change the meaning of a command line.
MEGATRON_DEFAULTS = {
    "normalization": "LayerNorm",
    "position-embedding-type": "learned_absolute",
    "attention-dropout": 0.1,
    "hidden-dropout": 0.1,
    "eval-iters": 0,  # Megatron's own default is 100; nothing is evaluated here, and the README says so
    "optimizer": "adam",
    "ckpt-format": "torch",
    "context-parallel-size": 1,
    "expert-model-parallel-size": 1,
}
REQUIRED_SWITCHES = {
    "swiglu": "only the SwiGLU feed-forward layer is implemented",
    "disable-bias-linear": "linear layers other than QKV have no bias here",
}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="pretrain_gpt.py", allow_abbrev=False, description=__doc__)
    add = p.add_argument
    for name in ("num-layers", "hidden-size", "ffn-hidden-size", "num-attention-heads", "seq-length",
                 "padded-vocab-size", "global-batch-size", "train-iters"):
        add(f"--{name}", type=positive, required=True)
    add("--tensor-model-parallel-size", type=positive, default=1)
    add("--pipeline-model-parallel-size", type=positive, default=1)
    add("--micro-batch-size", type=positive, default=1)
    add("--group-query-attention", action="store_true")
    add("--num-query-groups", type=positive)
    add("--kv-channels", type=positive)
    add("--add-qkv-bias", action="store_true")
    add("--untie-embeddings-and-output-weights", action="store_true")
    add("--norm-epsilon", type=float, default=1e-5)
    add("--rotary-base", type=float, default=10000.0)
    add("--init-method-std", type=float, default=0.02)
    add("--make-vocab-size-divisible-by", type=positive, default=128)
    add("--bf16", action="store_true")
    add("--lr", type=float, required=True)
    add("--min-lr", type=float, default=0.0)
    add("--lr-decay-style", choices=["constant", "linear", "cosine"], default="linear")
    add("--lr-decay-iters", type=positive)
    add("--lr-warmup-fraction", type=float)
    add("--lr-warmup-iters", type=int, default=0)
    add("--weight-decay", type=float, default=0.01)
    add("--clip-grad", type=float, default=1.0)
    add("--adam-beta1", type=float, default=0.9)
    add("--adam-beta2", type=float, default=0.999)
    add("--adam-eps", type=float, default=1e-8)
    add("--data-path", nargs="+", required=True)
    add("--split", default="969,30,1")
    add("--seed", type=int, default=1234)
    add("--load")
    add("--save")
    add("--ckpt-step", type=int)
    add("--save-interval", type=positive)
    add("--log-interval", type=positive, default=100)
    for switch in ("finetune", "no-load-optim", "no-load-rng", "no-save-optim", "no-save-rng",
                   "exit-on-missing-checkpoint", "exit-signal-handler", "log-throughput",
                   "use-distributed-optimizer", "swiglu", "disable-bias-linear"):
        add(f"--{switch}", action="store_true")
    add("--fail", metavar="RANK:ITERATION:HOW",
        help="fault injection: HOW is exitN, kill, hang or exception; fires in an attempt's first run only")
    for name in ACCEPTED_SWITCHES:
        add(f"--{name}", action="store_true")
    for name in ACCEPTED_VALUES:
        add(f"--{name}", nargs="*" if name == "recompute-modules" else None)
    for name, value in BOUND.items():
        add(f"--{name}", type=type(value), default=MEGATRON_DEFAULTS[name])
    return p


def parse(argv=None) -> argparse.Namespace:
    """Reads and checks the command line; exits with code 2 and the flag's name when it cannot be honoured."""
    p = parser()
    a = p.parse_args(argv)
    for name, value in BOUND.items():
        given = getattr(a, name.replace("-", "_"))
        if given != value:
            p.error(f"--{name} is `{given}`: only `{value}` is implemented")
    for name, why in REQUIRED_SWITCHES.items():
        if not getattr(a, name.replace("-", "_")):
            p.error(f"--{name} is missing: {why}")
    a.num_query_groups = (a.num_query_groups or a.num_attention_heads) if a.group_query_attention else a.num_attention_heads
    if a.kv_channels is None:
        if a.hidden_size % a.num_attention_heads:
            p.error(f"--hidden-size {a.hidden_size} is no multiple of --num-attention-heads {a.num_attention_heads}")
        a.kv_channels = a.hidden_size // a.num_attention_heads
    if a.kv_channels % 2:
        p.error(f"head size {a.kv_channels} is odd: rotary embedding turns pairs")
    tp, pp = a.tensor_model_parallel_size, a.pipeline_model_parallel_size
    for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size", "padded_vocab_size"):
        if getattr(a, name) % tp:
            p.error(f"--{name.replace('_', '-')} {getattr(a, name)} is no multiple of --tensor-model-parallel-size {tp}")
    if a.num_attention_heads % a.num_query_groups:
        p.error(f"--num-attention-heads {a.num_attention_heads} is no multiple of --num-query-groups {a.num_query_groups}")
    if a.num_layers % pp:
        p.error(f"--num-layers {a.num_layers} is no multiple of --pipeline-model-parallel-size {pp}")
    if a.global_batch_size % a.micro_batch_size:
        p.error(f"--global-batch-size {a.global_batch_size} is no multiple of --micro-batch-size {a.micro_batch_size}")
    if len(a.data_path) != 1:
        p.error("--data-path takes one prefix: blending several is not implemented")
    if a.lr_warmup_fraction is not None and a.lr_warmup_iters:
        p.error("--lr-warmup-fraction and --lr-warmup-iters exclude each other")
    if a.save_interval and not a.save:
        p.error("--save-interval needs --save")
    try:
        a.fail = parse_fail(a.fail)
    except ValueError as e:
        p.error(f"--fail: {e}")
    return a


def check_world(a: argparse.Namespace, world: int) -> None:
    """Refuses data parallelism: collectives on a CPU span the whole world only, and none is left for it."""
    model = a.tensor_model_parallel_size * a.pipeline_model_parallel_size
    if world != model:
        raise SystemExit(
            f"error: {world} ranks for a {model}-rank layout (--tensor-model-parallel-size x "
            f"--pipeline-model-parallel-size): data parallelism is not implemented; start exactly {model} ranks")


def parse_fail(text):
    """`rank:iteration:how` as (rank, iteration, how, exit code); None for None."""
    if not text:
        return None
    parts = text.split(":", 2)
    if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise ValueError(f"`{text}` is not rank:iteration:how")
    how = parts[2].replace(" ", "").replace("=", "")
    code = 0
    if how.startswith("exit") and how[4:].isdigit():
        how, code = "exit", int(how[4:])
    if how not in ("exit", "kill", "hang", "exception"):
        raise ValueError(f"`{parts[2]}` is none of exitN, kill, hang, exception")
    return int(parts[0]), int(parts[1]), how, code


def positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive number")
    return value
