//! Engine: Hugging Face safetensors to Megatron-core shards and back.
