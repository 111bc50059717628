"""What the trainer prints: Megatron's lines, so that its log readers need no second dialect."""

import datetime


def say(*parts) -> None:
    print(*parts, flush=True)


def stamp() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")


def training_line(iteration, train_iters, consumed, elapsed_ms, lr, batch, loss, grad_norm, nans,
                  throughput=None, when=None) -> str:
    """One progress line; `elapsed_ms` is per iteration, `throughput` in TFLOP/s per rank.

    The loss is left out unless positive, as Megatron does.
    """
    text = f" [{when or stamp()}] iteration {iteration:8d}/{train_iters:8d} |"
    text += f" consumed samples: {consumed:12d} |"
    text += f" elapsed time per iteration (ms): {elapsed_ms:.1f} |"
    if throughput is not None:
        text += f" throughput per GPU (TFLOP/s/GPU): {throughput:.1f} |"
    text += f" learning rate: {lr:.6E} | global batch size: {batch:5d} |"
    if loss > 0:
        text += f" lm loss: {loss:.6E} |"
    text += f" loss scale: {1.0:.1f} | grad norm: {grad_norm:.3f} |"
    return text + f" number of skipped iterations: {0:3d} | number of nan iterations: {nans:3d} |"


def memory_line(rank: int, iteration: int) -> str:
    """Resident memory of this process, in the place of device memory."""
    sizes = {}
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(("VmRSS:", "VmHWM:")):
                sizes[line[:5]] = int(line.split()[1]) / 1024
    now, peak = sizes["VmRSS"], sizes["VmHWM"]
    return (f"[Rank {rank}] (after {iteration} iterations) memory (MB) | allocated: {now} | max allocated: {peak} | "
            f"reserved: {now} | max reserved: {peak}")


def flops_per_iteration(a) -> float:
    """Floating-point operations of one iteration over all ranks: forward plus twice that for backward."""
    tokens, d = a.global_batch_size * a.seq_length, a.kv_channels
    qkv = a.hidden_size * d * (2 * a.num_attention_heads + 2 * a.num_query_groups)
    scores = 2 * a.seq_length * d * a.num_attention_heads / 2  # causal: half of the square
    mlp = 3 * a.hidden_size * a.ffn_hidden_size
    return 6.0 * tokens * (a.num_layers * (qkv + scores + mlp) + a.hidden_size * a.padded_vocab_size)
