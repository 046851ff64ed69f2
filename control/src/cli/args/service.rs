//! `ockam service`, `ockam worker` and `ockam flow-control`.

use super::shared::At;
use crate::api::Service;
use crate::cli::values;
use clap::{Args, Subcommand};

/// `ockam service ...`
#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// List the services of a node
    #[command(after_help = "Examples:\n  ockam service list\n  ockam service list --at n1 --output json")]
    List(At),
    /// Start a service
    #[command(after_help = "Examples:\n  ockam service start hop --at n1\n  ockam service start echo --addr my-echo")]
    Start(ServiceStart),
}

/// Arguments of `service start`.
#[derive(Args, Debug)]
pub struct ServiceStart {
    /// Which: hop, echo or uppercase
    #[arg(value_parser = values::service_kind)]
    pub service: Service,
    /// Its address; the name of the service when left out
    #[arg(long, value_name = "ADDRESS", value_parser = values::local_address)]
    pub addr: Option<String>,
    #[command(flatten)]
    pub at: At,
}

/// `ockam worker ...`
#[derive(Subcommand, Debug)]
pub enum WorkerCommand {
    /// List the local addresses of a node
    #[command(after_help = "Examples:\n  ockam worker list\n  ockam worker list --at n1 --output json")]
    List(At),
}

/// `ockam flow-control ...`
#[derive(Subcommand, Debug)]
pub enum FlowControlCommand {
    /// Let what comes in through a listener reach an address
    #[command(after_help = "Examples:\n  \
        ockam flow-control add-consumer 0123456789abcdef0123456789abcdef hop --at n1\n  \
        ockam tcp-listener list --at n1    # shows the flow control ids")]
    AddConsumer(AddConsumer),
}

/// Arguments of `flow-control add-consumer`.
#[derive(Args, Debug)]
pub struct AddConsumer {
    /// Flow control id of a listener: 32 hexadecimal digits
    #[arg(value_parser = values::flow_control_id)]
    pub flow_control_id: String,
    /// The local address to reach, such as hop or /service/hop
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    pub at: At,
}
