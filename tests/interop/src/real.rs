//! A node of the real library.

use crate::PATIENCE;
use ockam::compat::tokio::runtime::{Builder, Runtime};
use ockam::flow_control::FlowControlId;
use ockam::tcp::{TcpConnectionOptions, TcpListenerOptions, TcpTransport};
use ockam::{Address, Any, Context, Executor, MessageSendReceiveOptions, NodeBuilder, Result, Route, Routed, Worker};
use std::net::SocketAddr;
use std::sync::Arc;

/// The services of a real node here, reachable over its listener and over the connections it dials.
const SERVICES: [&str; 3] = ["echo", "uppercase", "hop"];

/// A real node in this process: a TCP listener on 127.0.0.1, and the services `echo`, `uppercase` and `hop`.
pub struct RealNode {
    context: Context,
    tcp: Arc<TcpTransport>,
    address: SocketAddr,
    // Routes between its workers for as long as it lives.
    _executor: Executor,
    runtime: Arc<Runtime>,
}

impl RealNode {
    /// A node that listens on 127.0.0.1.
    pub fn start() -> RealNode {
        RealNode::start_at("127.0.0.1:0")
    }

    /// A node that listens on `address`.
    pub fn start_at(address: &str) -> RealNode {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime");
        let runtime = Arc::new(runtime);
        let (context, executor) =
            NodeBuilder::new().no_logging().no_exit_on_panic().with_runtime(runtime.clone()).build();
        let tcp = TcpTransport::get_or_create(&context).expect("a TCP transport");
        context.start_worker("echo", Echo).expect("start echo");
        context.start_worker("uppercase", Uppercase).expect("start uppercase");
        context.start_worker("hop", Hop).expect("start hop");
        let options = TcpListenerOptions::new();
        admit(&context, &options.spawner_flow_control_id());
        let listener = runtime.block_on(tcp.listen(address, options)).expect("listen");
        RealNode { address: *listener.socket_address(), context, tcp, _executor: executor, runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Dials a node. Gives the local address of the connection, the first of every route over it.
    pub fn connect(&self, to: SocketAddr) -> String {
        let options = TcpConnectionOptions::new();
        admit(&self.context, &options.flow_control_id());
        let connection = self.runtime.block_on(self.tcp.connect(to.to_string(), options)).expect("connect");
        connection.sender_address().address().to_string()
    }

    /// Sends `payload` along `route` and gives the payload of the answer.
    pub fn ask(&self, route: impl Into<Route>, payload: &[u8]) -> Vec<u8> {
        self.ask_in_full(route, payload).into_payload()
    }

    /// Sends `payload` along `route` and gives the answer with its routes.
    pub fn ask_in_full(&self, route: impl Into<Route>, payload: &[u8]) -> Routed<Vec<u8>> {
        let options = MessageSendReceiveOptions::new().with_timeout(PATIENCE);
        self.runtime
            .block_on(self.context.send_and_receive_extended(route, payload.to_vec(), options))
            .expect("an answer")
    }

    /// Sends a text along `route` and gives the text of the answer.
    pub fn ask_text(&self, route: impl Into<Route>, text: &str) -> String {
        let options = MessageSendReceiveOptions::new().with_timeout(PATIENCE);
        self.runtime
            .block_on(self.context.send_and_receive_extended(route, text.to_owned(), options))
            .and_then(Routed::into_body)
            .expect("an answer")
    }

    /// Sends `payload` along `route` and expects nothing.
    pub fn tell(&self, route: impl Into<Route>, payload: &[u8]) {
        self.runtime.block_on(self.context.send(route, payload.to_vec())).expect("send");
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        // Closes its connections. There is nothing left to do when it fails, and a test may already be failing.
        let _ = self.runtime.block_on(self.context.shutdown_node());
    }
}

/// Makes the services reachable for whatever carries this flow control, as the real command does (`wire.md` A.7).
fn admit(context: &Context, flow_control: &FlowControlId) {
    for service in SERVICES {
        context.flow_controls().add_consumer(&service.into(), flow_control);
    }
}

/// Answers with the payload it got, unread.
struct Echo;

#[ockam::worker]
impl Worker for Echo {
    type Context = Context;
    type Message = Any;

    async fn handle_message(&mut self, context: &mut Context, message: Routed<Any>) -> Result<()> {
        let route = message.return_route().clone();
        context.send(route, message.into_payload()).await
    }
}

/// Answers with the text it got in upper case.
struct Uppercase;

#[ockam::worker]
impl Worker for Uppercase {
    type Context = Context;
    type Message = String;

    async fn handle_message(&mut self, context: &mut Context, message: Routed<String>) -> Result<()> {
        let route = message.return_route().clone();
        context.send(route, message.into_body()?.to_uppercase()).await
    }
}

/// Forwards to the next address of the route (`wire.md` B.1).
struct Hop;

#[ockam::worker]
impl Worker for Hop {
    type Context = Context;
    type Message = Any;

    async fn handle_message(&mut self, context: &mut Context, message: Routed<Any>) -> Result<()> {
        let here: Address = context.primary_address().clone();
        context.forward(message.into_local_message().step_forward(here)?).await
    }
}
