//! How a restart rewrites the arguments of a first start.

use super::Arguments;
use crate::spec::Resume;

/// The arguments that go on from iteration `iteration` in `save_dir`.
///
/// `arguments` are those of the first start. `exact` reads optimizer and random
/// state too; `weights` leaves --no-load-optim and --no-load-rng as they were;
/// `never` changes nothing. --finetune is dropped: it would count iterations
/// from 0 again.
#[must_use]
pub fn resume_arguments(resume: Resume, arguments: &[String], save_dir: &str, iteration: u64) -> Vec<String> {
    let mut list = Arguments::parse(arguments);
    match resume {
        Resume::Never => return arguments.to_vec(),
        Resume::Weights => {
            // Optimizer state may be missing from the checkpoint, so it is not asked for.
            for flag in ["--no-load-optim", "--no-load-rng"] {
                if !list.has(flag) {
                    list.flag(flag);
                }
            }
        }
        Resume::Exact => {
            list.remove("--no-load-optim");
            list.remove("--no-load-rng");
        }
    }
    list.remove("--finetune");
    list.set("--load", save_dir);
    list.set("--ckpt-step", &iteration.to_string());
    list.into_words()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resumed(resume: Resume, arguments: &str) -> String {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        resume_arguments(resume, &words, "./ckpt", 15).join(" ")
    }

    #[test]
    fn each_policy_rewrites_what_it_must() {
        let first = "--no-load-optim --no-load-rng --seed 1 --load ./w --save ./ckpt --finetune --x 1";
        assert_eq!(resumed(Resume::Exact, first), "--seed 1 --load ./ckpt --save ./ckpt --x 1 --ckpt-step 15");
        assert_eq!(
            resumed(Resume::Weights, first),
            "--no-load-optim --no-load-rng --seed 1 --load ./ckpt --save ./ckpt --x 1 --ckpt-step 15"
        );
        assert_eq!(resumed(Resume::Never, first), first);
        assert_eq!(
            resumed(Resume::Weights, "--save ./ckpt"),
            "--save ./ckpt --no-load-optim --no-load-rng --load ./ckpt --ckpt-step 15"
        );
    }

    #[test]
    fn a_second_restart_replaces_the_first_ones_step() {
        let once = resumed(Resume::Exact, "--load ./w --ckpt-step 5");
        assert_eq!(once, "--load ./ckpt --ckpt-step 15");
        assert_eq!(resumed(Resume::Exact, &once), once);
    }
}
