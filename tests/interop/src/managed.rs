//! A node of the real library with all that the real command starts in it: services, portals, relays, and the sessions
//! that watch over their ways (`wire.md` F.6).

use crate::{Anchor, Attested, PATIENCE};
use ockam::compat::tokio::runtime::{Builder, Runtime};
use ockam::identity::Identifier;
use ockam::identity::models::ChangeHistory;
use ockam::tcp::{TcpListenerOptions, TcpTransport};
use ockam::transport::HostnamePort;
use ockam::{Address, Context, Executor, NodeBuilder, Route};
use ockam_api::ConnectionStatus;
use ockam_api::cli_state::{CliState, CliStateMode};
use ockam_api::nodes::InMemoryNode;
use ockam_api::nodes::models::policies::ResourceTypeOrName;
use ockam_api::nodes::models::portal::OutletAccessControl;
use ockam_api::nodes::models::relay::{RelayInfo, ReturnTiming};
use ockam_api::nodes::service::{NodeManagerGeneralOptions, NodeManagerTransportOptions};
use ockam_multiaddr::MultiAddr;
use ockam_tests::Port;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A real node as its command would run it, in this process. It keeps its identity when it is stopped and started again.
pub struct ManagedNode {
    /// Its database.
    directory: TempDir,
    /// Where it listens, also after a stop.
    port: Port,
    /// Where its inlets do, some of them only at their second try.
    inlets: Mutex<Vec<Port>>,
    identifier: Identifier,
    trust: Trust,
    /// Absent while it is stopped.
    running: Option<Running>,
}

/// Whom a node believes: the history of an authority, and, for a member of it, the route to where it asks for
/// credentials of its own.
#[derive(Default)]
struct Trust {
    authority: Option<ChangeHistory>,
    route: Option<MultiAddr>,
}

struct Running {
    node: InMemoryNode,
    context: Context,
    // Routes between its workers for as long as it lives.
    _executor: Executor,
    runtime: Arc<Runtime>,
}

impl ManagedNode {
    /// A node that listens on a port of its own.
    pub fn start() -> ManagedNode {
        let directory =
            tempfile::Builder::new().prefix("ockam-interop-real-").tempdir().expect("a temporary directory");
        let (port, trust) = (Port::take(), Trust::default());
        let running = Running::start(&directory, port.address(), &trust);
        let identifier = running.node.identifier();
        ManagedNode { directory, port, inlets: Mutex::default(), identifier, trust, running: Some(running) }
    }

    /// Starts it again, as one that believes the authority with this history, and guards its services by its policies.
    /// It has no credential of its own.
    pub fn believe(&mut self, authority: &[u8]) {
        let authority = Some(ChangeHistory::import(authority).expect("a history"));
        self.start_trusting(Trust { authority, route: None });
    }

    /// The same, as a member that asks the authority for credentials and shows them.
    pub fn join(&mut self, authority: &Anchor) {
        let route = Some(multiaddr(&authority.route));
        let authority = Some(ChangeHistory::import(&authority.history).expect("a history"));
        self.start_trusting(Trust { authority, route });
    }

    fn start_trusting(&mut self, trust: Trust) {
        self.stop();
        self.trust = trust;
        self.start_again();
    }

    /// Who it is.
    pub fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Ends it. Nobody listens at its port then.
    pub fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        let Running { node, context, _executor, runtime } = running;
        runtime.block_on(async {
            node.stop(&context).await.expect("stop its sessions and services");
            context.shutdown_node().await.expect("shut down");
        });
    }

    /// Starts it again where it listened, as who it was, with nothing of what had been created in it.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        self.running = Some(Running::start(&self.directory, self.address(), &self.trust));
    }

    /// Creates an outlet at `address` for `to`, reachable as one of the command is, for whom `policy` admits, or for
    /// whom the policy of all outlets does.
    #[track_caller]
    pub fn outlet_for(&self, address: &str, to: SocketAddr, policy: Option<&str>) {
        let Running { node, context, runtime, .. } = self.running();
        let policy = policy.map(|policy| policy.parse().unwrap_or_else(|e| panic!("{policy}: {e}")));
        let created = node.create_outlet(
            context,
            HostnamePort::from(to),
            false,
            Some(Address::from_string(address)),
            true,
            OutletAccessControl::WithPolicyExpression(policy),
            false,
            false,
            false,
        );
        runtime.block_on(created).expect("an outlet");
    }

    /// Says who may use a service or an outlet that there is.
    #[track_caller]
    pub fn allow(&self, resource: &str, policy: &str) {
        let policy = policy.parse().unwrap_or_else(|e| panic!("{policy}: {e}"));
        let resource = ResourceTypeOrName::Name(resource.into());
        self.run(async |node, _| node.set_policy(resource, "handle_message", policy).await).expect("a policy");
    }

    /// Creates an inlet whose route ends in an outlet's address, and tells where it listens. Waits for its way to be up, or
    /// to fail once.
    #[track_caller]
    pub fn inlet(&self, alias: &str, to: &str) -> SocketAddr {
        let Running { node, context, runtime, .. } = self.running();
        let port = Port::take();
        let from = HostnamePort::localhost(port.number());
        self.inlets.lock().expect("no test thread died with this lock").push(port);
        let created = node.create_inlet(
            context,
            from,
            Route::default(),
            Route::default(),
            multiaddr(to),
            alias.to_owned(),
            None,
            // What its command passes.
            Some(Duration::from_secs(5)),
            None,
            true,
            None,
            false,
            false,
            false,
            None,
            false,
            false,
        );
        let inlet = runtime.block_on(created).expect("an inlet");
        inlet.bind_addr.parse().expect("an address")
    }

    /// Registers a relay at the node that `at` leads to. Waits for it.
    #[track_caller]
    pub fn relay(&self, name: &str, at: &str) {
        let relay = self.create_relay(name, at);
        assert_eq!(relay.connection_status(), ConnectionStatus::Up, "the relay {name} at {at:?}");
        assert_eq!(relay.remote_address().as_deref(), Some(&*format!("forward_to_{name}")));
    }

    /// Whether it can register a relay at the node that `at` leads to.
    pub fn tries_relay(&self, name: &str, at: &str) -> bool {
        self.create_relay(name, at).connection_status() == ConnectionStatus::Up
    }

    fn create_relay(&self, name: &str, at: &str) -> RelayInfo {
        let (at, name, timing) = (multiaddr(at), name.to_owned(), ReturnTiming::AfterConnection);
        // As its command does, it asks for an address of the relay's name.
        let create = async |node: &InMemoryNode, context: &Context| {
            node.create_relay(context, &at, name.clone(), None, Some(name.clone()), timing).await
        };
        self.run(create).expect("a relay")
    }

    /// Whether it holds the way of an inlet to be up.
    pub fn inlet_is_up(&self, alias: &str) -> bool {
        let Running { node, runtime, .. } = self.running();
        let inlet = runtime.block_on(node.show_inlet(alias)).expect("an inlet of this alias");
        inlet.status == ConnectionStatus::Up
    }

    /// Whether it holds the way of a relay to be up.
    pub fn relay_is_up(&self, name: &str) -> bool {
        let Running { node, runtime, .. } = self.running();
        let relay = runtime.block_on(node.show_relay(name)).expect("a relay of this name");
        relay.connection_status() == ConnectionStatus::Up
    }

    /// What it holds to be true of somebody by the word of the authority that it believes.
    pub fn attested(&self, subject: &Identifier) -> Option<Attested> {
        self.run(async |node, _| {
            let authority = node.project_authority().expect("it believes one");
            let attributes = node.secure_channels().identities().identities_attributes();
            let entry = attributes.get_attributes(subject, &authority).await.expect("a database");
            entry.as_ref().map(Attested::from)
        })
    }

    /// Gives its identity another key, signed by the old one, and another key for channels.
    pub fn rotate(&self) {
        self.run(async |node, _| {
            let identities = node.secure_channels().identities();
            // Its database is busy for somebody else at times, and then this fails.
            let since = Instant::now();
            while let Err(e) = identities.identities_creation().rotate_identity(&self.identifier).await {
                assert!(since.elapsed() < PATIENCE, "rotate: {e}");
            }
            let creation = identities.purpose_keys().purpose_keys_creation();
            creation.create_secure_channel_purpose_key(&self.identifier).await.expect("a purpose key");
        });
    }

    /// Has it do something.
    pub(crate) fn run<T>(&self, what: impl AsyncFnOnce(&InMemoryNode, &Context) -> T) -> T {
        let Running { node, context, runtime, .. } = self.running();
        runtime.block_on(what(node, context))
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }
}

impl Drop for ManagedNode {
    fn drop(&mut self) {
        if let Some(Running { node, context, _executor, runtime }) = self.running.take() {
            // There is nothing left to do when it fails, and a test may already be failing.
            runtime.block_on(async {
                let _ = node.stop(&context).await;
                let _ = context.shutdown_node().await;
            });
        }
    }
}

impl Running {
    fn start(directory: &TempDir, address: SocketAddr, trust: &Trust) -> Running {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime");
        let runtime = Arc::new(runtime);
        let (context, executor) =
            NodeBuilder::new().no_logging().no_exit_on_panic().with_runtime(runtime.clone()).build();
        let started = async {
            let tcp = TcpTransport::get_or_create(&context).expect("a TCP transport");
            let listener = listen(&tcp, address).await;
            let mode = CliStateMode::Persistent(directory.path().to_owned());
            let state = CliState::create(mode).await.expect("a database");
            let name = "real";
            state.start_node_with_optional_values(name, &None, Some(&listener)).await.expect("a node in the database");
            // What its command passes for `--authority-identity` and so on.
            let (Trust { authority, route }, scope) = (trust, Some("interop".to_owned()));
            let scope = scope.filter(|_| route.is_some());
            let trust = state.retrieve_trust_options(&None, authority, route, &scope).await.expect("trust options");
            let node = InMemoryNode::new(
                &context,
                // The last: it stays in the database when it ends.
                NodeManagerGeneralOptions::new(state, name.to_owned(), true, None, true),
                NodeManagerTransportOptions::new_tcp(listener.flow_control_id().clone(), tcp),
                trust,
            );
            node.await.expect("a node")
        };
        let node = runtime.block_on(started);
        Running { node, context, _executor: executor, runtime }
    }
}

/// What listened there before it was stopped may still be ending.
async fn listen(tcp: &TcpTransport, address: SocketAddr) -> ockam::tcp::TcpListener {
    let since = Instant::now();
    loop {
        match tcp.listen(address.to_string(), TcpListenerOptions::new()).await {
            Ok(listener) => return listener,
            Err(e) => assert!(since.elapsed() < PATIENCE, "listen on {address}: {e}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn multiaddr(text: &str) -> MultiAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}
