//! The choices: step(world, input, now) decides what should happen, and nothing else.
