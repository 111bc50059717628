"""Megatron's checkpoint directory: one shard per (tensor, pipeline) rank, a tracker that names the newest whole one."""

import collections
import os
from argparse import Namespace

import numpy as np

import pickle_pt
from shapes import shard_shapes
from trainlog import say

TRACKER = "latest_checkpointed_iteration.txt"
# What a load compares, and what a converter needs to know, under Megatron's names.
RECORDED = """
    num_layers hidden_size ffn_hidden_size num_attention_heads num_query_groups group_query_attention kv_channels
    seq_length padded_vocab_size add_qkv_bias untie_embeddings_and_output_weights norm_epsilon normalization
    position_embedding_type rotary_base tensor_model_parallel_size pipeline_model_parallel_size micro_batch_size
    global_batch_size seed swiglu bf16
""".split()
COMPARED = "num_layers hidden_size num_attention_heads tensor_model_parallel_size pipeline_model_parallel_size".split()


class LoadError(Exception):
    """A checkpoint cannot be used; the message says which file and why."""


class Loaded:
    """What a shard gave: weights by name, and where training stood."""

    def __init__(self, iteration, consumed, weights, optimizer=None, samples=None):
        self.iteration, self.consumed, self.weights = iteration, consumed, weights
        self.optimizer, self.schedule_samples = optimizer, samples


def shard_dir(root, iteration, tp_rank, pp_rank, pp):
    name = f"mp_rank_{tp_rank:02d}" + (f"_{pp_rank:03d}" if pp > 1 else "")
    return os.path.join(root, f"iter_{iteration:07d}", name)


def read_tracker(root):
    """The iteration the tracker names, or None without a tracker."""
    path = os.path.join(root, TRACKER)
    try:
        with open(path) as f:
            text = f.read(64).strip()
    except FileNotFoundError:
        return None
    if not text.isdigit():
        raise LoadError(f"`{path}` says `{text}`, which is no iteration")
    return int(text)


def load(a, world):
    """Reads this rank's shard from `--load`; None when there is nothing to load, as Megatron decides it.

    Raises `LoadError` when there is a checkpoint that does not fit.
    """
    if not a.load:
        return None
    iteration = a.ckpt_step if a.ckpt_step is not None else read_tracker(a.load)
    if iteration is None:
        if a.exit_on_missing_checkpoint:
            raise LoadError(f"no `{TRACKER}` in `{a.load}`, and --exit-on-missing-checkpoint is set")
        if world.rank == 0:
            say(f"WARNING: could not find the metadata file {os.path.join(a.load, TRACKER)}")
            say("    will not load any checkpoints and will start from random")
        return None
    if world.rank == 0:
        say(f" loading checkpoint from {a.load} at iteration {iteration}")
    folder = shard_dir(a.load, iteration, world.tp_rank, world.pp_rank, world.pp)
    path = os.path.join(folder, "model_optim_rng.pt")
    try:
        state = pickle_pt.load(path)
    except OSError as e:
        raise LoadError(f"shard `{path}` cannot be read: {e.strerror}") from e
    except pickle_pt.BadCheckpoint as e:
        raise LoadError(str(e)) from e
    saved = vars(state["args"]) if isinstance(state.get("args"), Namespace) else {}
    if not a.finetune:
        for name in COMPARED:
            if name in saved and saved[name] != getattr(a, name):
                raise LoadError(f"`{path}` was saved with {name} = {saved[name]}, the command line says {getattr(a, name)}")
    weights = checked(state.get("model"), shard_shapes(a, world.pp_rank), path, "model")
    if a.finetune:
        return Loaded(0, 0, weights)
    iteration = int(state.get("iteration", iteration))
    consumed = int(saved.get("consumed_train_samples", 0)) or iteration * a.global_batch_size
    optimizer = samples = None
    if not a.no_load_optim:
        optimizer = state.get("optimizer")
        beside = os.path.join(folder, "distrib_optim.pt")
        if optimizer is None and os.path.exists(beside):
            optimizer = pickle_pt.load(beside).get("optimizer")
        if not isinstance(optimizer, dict) or "opt_param_scheduler" not in state:
            raise LoadError(f"`{path}` holds no optimizer state: pass --no-load-optim to train on from its weights, or --finetune")
        for part in ("fp32_params", "exp_avg", "exp_avg_sq"):
            optimizer[part] = checked(optimizer.get(part), shard_shapes(a, world.pp_rank), path, f"optimizer {part}")
        samples = int(state["opt_param_scheduler"]["num_steps"])
    return Loaded(iteration, consumed, weights, optimizer, samples)


def checked(found, shapes, path, what) -> dict:
    """Picks the wanted tensors out of a dictionary, or says which is missing, superfluous or misshapen."""
    if not isinstance(found, dict):
        raise LoadError(f"`{path}` holds no `{what}`")
    tensors = {k: v for k, v in found.items() if v is not None}
    for name in tensors.keys() - shapes.keys():
        raise LoadError(f"`{path}`: {what} has `{name}`, which this model does not: check the model's flags")
    out = {}
    for name, shape in shapes.items():
        value = tensors.get(name)
        if not isinstance(value, np.ndarray):
            raise LoadError(f"`{path}`: {what} lacks `{name}`")
        if value.shape != shape:
            raise LoadError(f"`{path}`: `{name}` has shape {list(value.shape)} where the flags ask for {list(shape)}")
        out[name] = np.ascontiguousarray(value, dtype=np.float32)
        if not np.isfinite(out[name]).all():
            raise LoadError(f"`{path}`: `{name}` has a value that is not finite")
    return out


def save(a, world, iteration, consumed, optimizer, schedule_samples, barrier) -> None:
    """Every rank writes its shard; after all have, rank 0 moves the tracker.

    So a tracker that names an iteration proves that all its shards are whole.
    """
    if world.rank == 0:
        say(f"saving checkpoint at iteration {iteration:7d} to {a.save} in torch format")
    pack = pickle_pt.Bf16 if a.bf16 else (lambda x: x)
    args = {n: getattr(a, n) for n in RECORDED}
    args.update(iteration=iteration, consumed_train_samples=consumed, skipped_train_samples=0, consumed_valid_samples=0,
                add_position_embedding=True, params_dtype_name="bfloat16" if a.bf16 else "float32", add_bias_linear=False,
                max_position_embeddings=int(a.max_position_embeddings or a.seq_length), ckpt_format="torch",
                make_vocab_size_divisible_by=a.make_vocab_size_divisible_by)
    state = {
        "args": Namespace(**args), "checkpoint_version": 3.0, "iteration": iteration,
        "model": collections.OrderedDict((n, pack(v)) for n, v in optimizer.weights().items()),
        "rerun_state_machine": None, "num_floating_point_operations_so_far": 0,
    }
    folder = shard_dir(a.save, iteration, world.tp_rank, world.pp_rank, world.pp)
    os.makedirs(folder, exist_ok=True)
    if not a.no_save_optim:
        state["opt_param_scheduler"] = {"num_steps": schedule_samples}
        if a.use_distributed_optimizer:
            pickle_pt.save({"optimizer": optimizer.state()}, os.path.join(folder, "distrib_optim.pt"))
        else:
            state["optimizer"] = optimizer.state()
    if not a.no_save_rng:
        state["rng_state"] = []  # nothing here draws random numbers after the start
    pickle_pt.save(state, os.path.join(folder, "model_optim_rng.pt"))
    pickle_pt.sync_directory(os.path.dirname(folder))
    pickle_pt.sync_directory(a.save)
    barrier()
    if world.rank == 0:
        path = os.path.join(a.save, TRACKER)
        with open(path + ".tmp", "w") as f:
            f.write(str(iteration))
            f.flush()
            os.fsync(f.fileno())
        os.replace(path + ".tmp", path)
        pickle_pt.sync_directory(a.save)
        say(f"  successfully saved checkpoint from iteration {iteration:7d} to {a.save}")
    barrier()
