//! Engine: parquet and jsonl text to Megatron's .bin/.idx.
