#!/usr/bin/env python3
"""Compares two Hugging Face models on text that neither was trained on, by numpy alone."""

import argparse
import json
import sys

from check_forward import Refused, loss_of


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--before", required=True, help="Hugging Face directory of the input model")
    p.add_argument("--after", required=True, help="Hugging Face directory of the trained model")
    p.add_argument("--data-path", required=True, help="prefix of the held-out token files")
    p.add_argument("--seq-length", type=int, required=True)
    p.add_argument("--samples", type=int, default=16)
    p.add_argument("--min-fall", type=float, metavar="PERCENT", help="exit 1 unless the loss fell by this much")
    a = p.parse_args(argv)
    try:
        before, after = (loss_of(d, a.data_path, a.seq_length, 0, a.samples) for d in (a.before, a.after))
    except (Refused, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    fall = 100.0 * (before - after) / before
    print(json.dumps({"before": before, "after": after, "fall_percent": fall, "samples": a.samples}))
    return 1 if a.min_fall is not None and not fall >= a.min_fall else 0


if __name__ == "__main__":
    sys.exit(main())
