//! `qctl-controller token`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use controller::tokens;
use model::NodeId;

use super::Failure;

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// The controller's state directory
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// The node that may join with it
    #[arg(long)]
    node: NodeId,
    /// How long it is good for, in seconds
    #[arg(long, default_value_t = 3600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    ttl_seconds: u64,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        let made = tokens::create(&self.state_dir, &self.node, Duration::from_secs(self.ttl_seconds));
        let token = made.with_context(|| format!("no token could be saved in `{}`", self.state_dir.display()))?;
        Ok(super::print(&token)?)
    }
}
