//! `ockam service`, `ockam worker` and `ockam flow-control`: what has an address, and who may reach it.

use super::Session;
use crate::api::{self, ServiceInfo, StartService, WorkerInfo, path};
use crate::cli::args::service::{FlowControlCommand, ServiceCommand, WorkerCommand};
use crate::cli::show::{Output, table};
use crate::error::Error;

/// Runs a command of `ockam service`.
///
/// # Errors
/// What the command says.
pub fn run(command: ServiceCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        ServiceCommand::List(at) => {
            let node = session.existing(at.at)?;
            let services: Vec<ServiceInfo> = session.control(&node)?.get(path::SERVICES)?;
            let plain = || {
                let rows = services.iter().map(|it| [format!("/service/{}", it.address), it.service.name().into()]);
                table(["ADDRESS", "TYPE"], rows, &format!("The node {node} runs no services."))
            };
            session.terminal.print(Output::new(&services, plain))
        }
        ServiceCommand::Start(arguments) => {
            let node = session.existing_or_created(arguments.at.at)?;
            let request = StartService { service: arguments.service, address: arguments.addr };
            let started: ServiceInfo = session.control(&node)?.post(path::SERVICES, &request)?;
            if started.service == api::Service::Hop {
                session.terminal.warn(format_args!(
                    "whoever may reach /service/{} can send messages on to every address that {node} has, over any of \
                     its connections",
                    started.address
                ));
            }
            let address = format!("/service/{}", started.address);
            let plain = || format!("The node {node} runs {} at {address}.", started.service.name());
            session.terminal.print(Output::new(&started, plain).machine(address.clone()))
        }
    }
}

/// Runs a command of `ockam worker`.
///
/// # Errors
/// What the command says.
pub fn run_worker(command: WorkerCommand, session: &mut Session) -> Result<(), Error> {
    let WorkerCommand::List(at) = command;
    let node = session.existing(at.at)?;
    let workers: Vec<WorkerInfo> = session.control(&node)?.get(path::WORKERS)?;
    let plain = || {
        let rows = workers.iter().map(|it| [it.address.clone(), it.kind.clone(), it.reachable_from.len().to_string()]);
        table(["ADDRESS", "KIND", "FLOW CONTROLS"], rows, &format!("The node {node} has no addresses."))
    };
    session.terminal.print(Output::new(&workers, plain))
}

/// Runs a command of `ockam flow-control`.
///
/// # Errors
/// What the command says.
pub fn run_flow_control(command: FlowControlCommand, session: &mut Session) -> Result<(), Error> {
    let FlowControlCommand::AddConsumer(arguments) = command;
    let node = session.existing(arguments.at.at)?;
    let request = api::AddConsumer { flow_control_id: arguments.flow_control_id, address: arguments.address };
    let added: api::AddConsumer = session.control(&node)?.post(path::CONSUMERS, &request)?;
    let plain =
        || format!("What comes to {node} through flow control {} may reach {}.", added.flow_control_id, added.address);
    session.terminal.print(Output::new(&added, plain).machine(added.address.clone()))
}
