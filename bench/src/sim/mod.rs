//! Controllers as they are, and agents that this process plays: what the
//! control plane costs where nothing else runs.

pub(crate) mod agent;
pub(crate) mod bare;
pub(crate) mod certificates;
pub(crate) mod site;
