//! The processes of a node, which the command starts from its own image.

use crate::cli::values;
use crate::home::NodeName;
use clap::Args;
use ockam_engine::DriverChoice;
use std::path::PathBuf;

/// Arguments of the control process.
#[derive(Args, Debug)]
pub struct ControlProcess {
    /// The directory of all state, here so that a list of processes shows whose they are
    #[arg(long)]
    pub home: PathBuf,
    /// The node
    #[arg(long, value_parser = values::node_name)]
    pub node: NodeName,
}

/// Arguments of the engine process.
#[derive(Args, Debug)]
pub struct EngineProcess {
    /// The directory of the node
    #[arg(long)]
    pub node_dir: PathBuf,
    /// I/O driver
    #[arg(long, default_value = "auto", value_parser = values::driver)]
    pub driver: DriverChoice,
    /// Threads
    #[arg(long)]
    pub threads: Option<u8>,
    /// Pin threads to cores
    #[arg(long)]
    pub pin: bool,
    /// Bytes that may wait for applications
    #[arg(long)]
    pub portal_memory: Option<u64>,
}
