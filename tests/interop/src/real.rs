//! A node of the real library.

use crate::{PATIENCE, noise};
use ockam::access_control::AllowAll;
use ockam::compat::tokio::runtime::{Builder, Runtime};
use ockam::flow_control::FlowControlId;
use ockam::identity::{
    Identifier, SecureChannel, SecureChannelListenerOptions, SecureChannelOptions, SecureChannels,
    TrustMultiIdentifiersPolicy, secure_channels,
};
use ockam::tcp::{TcpConnectionOptions, TcpListenerOptions, TcpTransport};
use ockam::vault::SigningKeyType;
use ockam::{
    Address, Any, Context, Executor, MessageReceiveOptions, MessageSendReceiveOptions, NodeBuilder, Result, Route,
    Routed, Worker, route,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The services of a real node here, reachable over its listener and over the connections it dials. `api` is where it
/// listens for secure channels, once it does.
const SERVICES: [&str; 4] = ["echo", "uppercase", "hop", "api"];

/// What can be reached through a secure channel of a real node: `hop` cannot.
pub(crate) const SERVICES_IN_CHANNELS: [&str; 3] = ["echo", "uppercase", "api"];

/// A real node in this process: a TCP listener on 127.0.0.1, and the services `echo`, `uppercase` and `hop`.
pub struct RealNode {
    pub(crate) context: Context,
    tcp: Arc<TcpTransport>,
    address: SocketAddr,
    /// What comes in over its TCP listener.
    pub(crate) incoming: FlowControlId,
    /// Its identities and channels, and its first identity; made when they are first needed.
    channels: OnceLock<(Arc<SecureChannels>, Identifier)>,
    // Routes between its workers for as long as it lives.
    _executor: Executor,
    pub(crate) runtime: Arc<Runtime>,
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
        let incoming = options.spawner_flow_control_id();
        admit(&context, &SERVICES, &incoming);
        let listener = runtime.block_on(tcp.listen(address, options)).expect("listen");
        let (address, channels) = (*listener.socket_address(), OnceLock::new());
        RealNode { address, context, tcp, incoming, channels, _executor: executor, runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Dials a node. Gives the local address of the connection, the first of every route over it.
    pub fn connect(&self, to: SocketAddr) -> String {
        let options = TcpConnectionOptions::new();
        admit(&self.context, &SERVICES, &options.flow_control_id());
        let connection = self.runtime.block_on(self.tcp.connect(to.to_string(), options)).expect("connect");
        connection.sender_address().address().to_string()
    }

    /// Closes a connection that it dialed.
    pub fn disconnect(&self, connection: &str) {
        self.tcp.disconnect(Address::from_string(connection)).expect("disconnect");
    }

    /// Who it is.
    pub fn identifier(&self) -> Identifier {
        self.channels().1.clone()
    }

    /// Makes it another identity, with a key of P-256.
    pub fn new_p256_identity(&self) -> Identifier {
        let creation = self.channels().0.identities().identities_creation();
        let builder = creation.identity_builder().with_random_key(SigningKeyType::ECDSASHA256CurveP256);
        self.runtime.block_on(builder.build()).expect("an identity")
    }

    /// Gives its identity a new key, signed by the old one, and a new key for channels.
    pub fn rotate(&self) {
        let (channels, identifier) = self.channels();
        let identities = channels.identities();
        self.runtime.block_on(async {
            identities.identities_creation().rotate_identity(identifier).await.expect("rotate");
            let purpose_keys = identities.purpose_keys();
            let creation = purpose_keys.purpose_keys_creation();
            creation.create_secure_channel_purpose_key(identifier).await.expect("a purpose key");
        });
    }

    /// The history that it has of an identity, its own or a peer's, encoded.
    pub fn history(&self, identifier: &Identifier) -> Vec<u8> {
        self.runtime.block_on(self.channels().0.identities().export_identity(identifier)).expect("a known identity")
    }

    /// Stores the history of an identity, encoded, and gives its identifier.
    #[track_caller]
    pub fn import(&self, history: &[u8]) -> Identifier {
        let verification = self.channels().0.identities().identities_verification();
        self.runtime.block_on(verification.import(None, history)).expect("a history that verifies")
    }

    /// Listens for channels at `api`, for everyone.
    pub fn serve_channels(&self) {
        self.serve_channels_as(&self.identifier(), "api", None);
    }

    /// Listens for channels at `address`, as this identity, for these peers, or for everyone.
    pub fn serve_channels_as(&self, identity: &Identifier, address: &str, authorized: Option<&[Identifier]>) {
        let mut options = SecureChannelListenerOptions::new().as_consumer(&self.incoming);
        if let Some(authorized) = authorized {
            options = options.with_trust_policy(TrustMultiIdentifiersPolicy::new(authorized.to_vec()));
        }
        admit(&self.context, &SERVICES_IN_CHANNELS, &options.spawner_flow_control_id());
        let channels = &self.channels().0;
        channels.create_secure_channel_listener(&self.context, identity, address, options).expect("listen");
    }

    /// Opens a channel to whoever listens at the end of `route`.
    #[track_caller]
    pub fn open(&self, route: impl Into<Route>) -> SecureChannel {
        self.open_as(&self.identifier(), route, None).expect("a channel")
    }

    /// Opens a channel as this identity, to one of these peers, or to anyone.
    pub fn open_as(
        &self,
        identity: &Identifier,
        route: impl Into<Route>,
        authorized: Option<&[Identifier]>,
    ) -> Result<SecureChannel> {
        let mut options = SecureChannelOptions::new().with_timeout(PATIENCE);
        if let Some(authorized) = authorized {
            options = options.with_trust_policy(TrustMultiIdentifiersPolicy::new(authorized.to_vec()));
        }
        admit(&self.context, &SERVICES_IN_CHANNELS, &options.producer_flow_control_id());
        let channels = &self.channels().0;
        self.runtime.block_on(channels.create_secure_channel(&self.context, identity, route, options))
    }

    /// The same, where the peer's silence or refusal is expected: waits for no more than a second.
    pub fn open_briefly(&self, route: impl Into<Route>, authorized: &[Identifier]) -> Result<SecureChannel> {
        let policy = TrustMultiIdentifiersPolicy::new(authorized.to_vec());
        let options = SecureChannelOptions::new().with_timeout(Duration::from_secs(1)).with_trust_policy(policy);
        let (channels, identity) = self.channels();
        self.runtime.block_on(channels.create_secure_channel(&self.context, identity, route, options))
    }

    /// Makes a worker reachable over its TCP listener.
    pub fn admit(&self, address: &str) {
        admit(&self.context, &[address], &self.incoming);
    }

    /// Stops the worker at an address.
    pub fn stop(&self, address: &str) {
        self.context.stop_address(&address.into()).expect("stop a worker");
    }

    /// Ends a channel. The peer is told.
    pub fn close(&self, encryptor: &Address) {
        self.channels().0.stop_secure_channel(&self.context, encryptor).expect("stop a channel");
    }

    /// Waits until it has so many ends of channels, and gives the addresses of their encryptors and who is at the
    /// other end.
    #[track_caller]
    pub fn ends(&self, count: usize) -> Vec<(Address, Identifier)> {
        let registry = self.channels().0.secure_channel_registry();
        let since = Instant::now();
        loop {
            let ends = registry.get_channel_list();
            if ends.len() == count {
                let ends = ends.into_iter();
                return ends.map(|end| (end.encryptor_messaging_address().clone(), end.their_id().clone())).collect();
            }
            assert!(since.elapsed() < PATIENCE, "{} ends of channels where {count} were expected", ends.len());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// An address of this node for many answers, which may come out of the channel with this encryptor.
    pub fn mailbox(&self, encryptor: &Address) -> Mailbox<'_> {
        let address = Address::random_local();
        let context = self.context.new_detached(address.clone(), AllowAll, AllowAll).expect("a mailbox");
        let flow_controls = self.context.flow_controls();
        let channel = flow_controls.find_flow_control_with_producer_address(encryptor).expect("a channel");
        flow_controls.add_consumer(&address, channel.flow_control_id());
        Mailbox { node: self, context, encryptor: encryptor.clone() }
    }

    pub(crate) fn channels(&self) -> &(Arc<SecureChannels>, Identifier) {
        self.channels.get_or_init(|| {
            self.runtime.block_on(async {
                let channels = secure_channels().await.expect("a database in memory");
                let creation = channels.identities().identities_creation();
                let identifier = creation.create_identity().await.expect("an identity");
                (channels, identifier)
            })
        })
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

/// An address that sends through a channel, and receives what comes back, any number of messages at a time.
pub struct Mailbox<'n> {
    node: &'n RealNode,
    context: Context,
    encryptor: Address,
}

impl Mailbox<'_> {
    /// Sends `payload` through the channel, to `echo` at its other end.
    pub fn send(&self, payload: &[u8]) {
        self.send_to(route![self.encryptor.clone(), "echo"], payload);
    }

    /// Sends `payload` along `route`.
    pub fn send_to(&self, route: Route, payload: &[u8]) {
        self.node.runtime.block_on(self.context.send(route, payload.to_vec())).expect("send");
    }

    /// The payload of the next message.
    #[track_caller]
    pub fn receive(&mut self) -> Vec<u8> {
        let options = MessageReceiveOptions::new().with_timeout(PATIENCE);
        let received = self.node.runtime.block_on(self.context.receive_extended::<Vec<u8>>(options));
        match received {
            Ok(message) => message.into_payload(),
            Err(e) => panic!("a message expected: {e}"),
        }
    }

    /// Has these payloads echoed through the channel, 40 at a time, and checks that they come back in this order.
    #[track_caller]
    pub fn echo_all(&mut self, payloads: &[Vec<u8>]) {
        const WINDOW: usize = 40;
        for i in 0..payloads.len() + WINDOW {
            if let Some(payload) = payloads.get(i) {
                self.send(payload);
            }
            if let Some(expected) = i.checked_sub(WINDOW).map(|i| &payloads[i]) {
                let got = self.receive();
                let place = payloads.iter().position(|payload| *payload == got);
                assert!(got == *expected, "message {} comes back as it was, not {place:?}", i - WINDOW);
            }
        }
    }

    /// Shows that the channel works and that nothing else is on its way to this address: an echo through the channel,
    /// whose answer must be the next message.
    #[track_caller]
    pub fn assert_alive_and_silent(&mut self) {
        let question = noise(16, NEXT.fetch_add(1, Ordering::Relaxed));
        self.send(&question);
        assert_eq!(hex::encode(self.receive()), hex::encode(question), "the next message is the answer to this echo");
    }
}

/// Makes every question of [`Mailbox::assert_alive_and_silent`] another one.
static NEXT: AtomicU64 = AtomicU64::new(1 << 32);

/// Makes the services reachable for whatever carries this flow control, as the real command does (`wire.md` A.7).
pub(crate) fn admit(context: &Context, services: &[&str], flow_control: &FlowControlId) {
    for service in services {
        context.flow_controls().add_consumer(&(*service).into(), flow_control);
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
