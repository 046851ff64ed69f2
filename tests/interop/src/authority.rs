//! Authorities, and what their members and enrollers ask of them (`wire.md` D.5).

use crate::credential::{encode, text};
use crate::{ManagedNode, PATIENCE, Texts};
use ockam::compat::tokio::runtime::{Builder, Runtime};
use ockam::compat::tokio::time::sleep;
use ockam::identity::utils::now;
use ockam::identity::{AttributesEntry, Identifier, Identity, SecureChannels, identities};
use ockam::tcp::TcpTransport;
use ockam::vault::SoftwareVaultForVerifyingSignatures;
use ockam::{Context, DatabaseConfiguration, Executor, NodeBuilder, SqlxDatabase};
use ockam_api::authenticator::credential_issuer::CredentialIssuerWorker;
use ockam_api::authenticator::direct::Members;
use ockam_api::authenticator::enrollment_tokens::{TokenAcceptor, TokenIssuer};
use ockam_api::authenticator::one_time_code::OneTimeCode;
use ockam_api::authenticator::{AuthorityMembersSqlxDatabase, PreTrustedIdentities, PreTrustedIdentity};
use ockam_api::authority_node::{Authority, Configuration};
use ockam_api::cli_state::{ExportedEnrollmentTicket, ProjectRoute};
use ockam_api::config::lookup::InternetAddress;
use ockam_api::enroll::enrollment::Enrollment;
use ockam_api::orchestrator::AuthorityNodeClient;
use ockam_api::orchestrator::project::Project;
use ockam_api::orchestrator::project::models::ProjectModel;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a node has to know of an authority to believe it and to ask it.
#[derive(Clone)]
pub struct Anchor {
    /// Who it is.
    pub identifier: Identifier,
    /// Its history, encoded.
    pub history: Vec<u8>,
    /// The route to the listener for channels of its node.
    pub route: String,
}

impl Anchor {
    pub(crate) fn at(identifier: Identifier, history: Vec<u8>, address: SocketAddr) -> Anchor {
        Anchor { identifier, history, route: format!("{}/service/api", crate::over_tcp(address)) }
    }

    /// A ticket as the real command makes them: the one-time code, and whom to bring it to.
    pub fn ticket(&self, code: &str) -> String {
        let code: OneTimeCode = code.parse().expect("a one-time code in hexadecimal");
        // A project of an authority alone has no node. Its route and its history are needed all the same.
        let project = self.route.replace("/service/api", "/service/interop/service/api");
        let project = ProjectRoute::new(project.parse().expect("a route")).expect("a route of a project");
        let history = hex::encode(&self.history);
        let ticket = ExportedEnrollmentTicket::new(
            code,
            project,
            self.identifier.clone(),
            RealAuthority::PROJECT,
            &history,
            &history,
            self.route.parse().expect("a route"),
        );
        ticket.hex_encoded().expect("text")
    }

    /// The older form of such a ticket.
    pub fn old_ticket(&self, code: &str) -> String {
        let ticket: ExportedEnrollmentTicket = self.ticket(code).parse().expect("it is its own");
        let runtime = Builder::new_current_thread().build().expect("a tokio runtime");
        let ticket = runtime.block_on(ticket.import()).expect("its histories verify");
        ticket.export_legacy().and_then(|ticket| ticket.hex_encoded()).expect("text")
    }

    /// The project as the real command exports it.
    pub fn project(&self) -> String {
        let ticket: ExportedEnrollmentTicket = self.ticket(&"00".repeat(32)).parse().expect("it is its own");
        let runtime = Builder::new_current_thread().build().expect("a tokio runtime");
        let ticket = runtime.block_on(ticket.import()).expect("its histories verify");
        serde_json::to_string(&ticket.project().expect("text")).expect("JSON")
    }

    /// What the real library reads in the JSON of a project.
    #[track_caller]
    pub fn read_project(json: &str) -> Anchor {
        let project: ProjectModel = serde_json::from_str(json).expect("a real node reads it");
        let runtime = Builder::new_current_thread().build().expect("a tokio runtime");
        let project = runtime.block_on(Project::import(project)).expect("a real node imports it");
        let identity = project.authority_identity().expect("an authority");
        Anchor {
            identifier: identity.identifier().clone(),
            history: identity.export().expect("a history"),
            route: project.authority_multiaddr().expect("a route").to_string(),
        }
    }

    /// What the real library reads in a ticket: an authority, and a one-time code in hexadecimal.
    #[track_caller]
    pub fn read_ticket(ticket: &str) -> (Anchor, String) {
        let ticket: ExportedEnrollmentTicket = ticket.trim_end().parse().expect("a real node reads it");
        let runtime = Builder::new_current_thread().build().expect("a tokio runtime");
        let ticket = runtime.block_on(ticket.import()).expect("its histories verify");
        let code = hex::encode(ticket.one_time_code.code());
        let project = ticket.project().expect("text");
        let history = project.authority_identity.expect("an authority");
        let import = Identity::import_from_string(None, &history, SoftwareVaultForVerifyingSignatures::create());
        let identifier = runtime.block_on(import).expect("a history").identifier().clone();
        let history = hex::decode(history).expect("hexadecimal");
        (Anchor { identifier, history, route: project.authority_access_route.expect("a route") }, code)
    }
}

/// The node of a real authority, with all that the real command starts in it, in this process.
pub struct RealAuthority {
    anchor: Anchor,
    channels: Arc<SecureChannels>,
    context: Context,
    /// Its members.
    _directory: tempfile::TempDir,
    // Routes between its workers for as long as it lives.
    _executor: Executor,
    runtime: Arc<Runtime>,
}

impl RealAuthority {
    /// The project whose members its members are. It says so in each credential.
    pub const PROJECT: &str = "interop";

    /// An authority on a free port of 127.0.0.1, of which these may enroll others. Its credentials live so long.
    pub fn start(enrollers: &[Identifier], lifetime: Duration) -> RealAuthority {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime");
        let runtime = Arc::new(runtime);
        let (context, executor) =
            NodeBuilder::new().no_logging().no_exit_on_panic().with_runtime(runtime.clone()).build();
        let directory =
            tempfile::Builder::new().prefix("ockam-interop-real-").tempdir().expect("a temporary directory");
        let database = DatabaseConfiguration::sqlite(directory.path().join("authority.sqlite3"));
        let started = start(&context, database, enrollers, lifetime);
        let (anchor, channels) = runtime.block_on(started);
        RealAuthority { anchor, channels, context, _directory: directory, _executor: executor, runtime }
    }

    /// What there is to know of it.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Gives it another key to issue credentials with. What the old one signed stays signed.
    pub fn renew_issuing_key(&self) {
        let creation = self.channels.identities().purpose_keys().purpose_keys_creation();
        let created = creation.create_credential_purpose_key(&self.anchor.identifier);
        self.runtime.block_on(created).expect("a key");
    }
}

impl Drop for RealAuthority {
    fn drop(&mut self) {
        // There is nothing left to do when it fails, and a test may already be failing.
        let _ = self.runtime.block_on(self.context.shutdown_node());
    }
}

async fn start(
    context: &Context,
    database: DatabaseConfiguration,
    enrollers: &[Identifier],
    lifetime: Duration,
) -> (Anchor, Arc<SecureChannels>) {
    let opened = SqlxDatabase::create(&database).await.expect("a database");
    let identities = identities::create(opened.clone(), "authority");
    let identifier = identities.identities_creation().create_identity().await.expect("an identity");
    let history = identities.export_identity(&identifier).await.expect("its own history");
    let role = BTreeMap::from([(b"ockam-role".to_vec(), b"enroller".to_vec())]);
    let since = now().expect("the clock is right");
    let trusted = PreTrustedIdentity::new(role, since, None, identifier.clone());
    let trusted: BTreeMap<_, _> = enrollers.iter().map(|enroller| (enroller.clone(), trusted.clone())).collect();
    let configuration = Configuration {
        identifier: identifier.clone(),
        database_configuration: database,
        project_identifier: RealAuthority::PROJECT.to_owned(),
        tcp_listener_address: InternetAddress::new("127.0.0.1:0").expect("an address"),
        secure_channel_listener_name: None,
        authenticator_name: None,
        trusted_identities: PreTrustedIdentities::new(trusted),
        no_direct_authentication: false,
        no_token_enrollment: false,
        okta: None,
        account_authority: None,
        enforce_admin_checks: false,
        disable_trust_context_id: false,
        telemetry_endpoint_url: None,
    };
    let authority = Authority::create(&configuration, Some(opened.clone())).await.expect("an authority");
    // What `authority_node::start_node` starts, but for an issuer whose credentials live as long as a test wants: that
    // one reads it in the environment, which is shared with every test of this process.
    let started = authority.start_secure_channel_listener(context, &configuration).await;
    let flow_control = started.expect("a listener for channels");
    authority.start_direct_authenticator(context, &flow_control, &configuration).expect("members");
    authority.start_enrollment_services(context, &flow_control, &configuration).expect("tokens");
    authority.start_echo_service(context, &flow_control).expect("an echo");
    let channels = authority.secure_channels();
    let issuer = CredentialIssuerWorker::new(
        AuthorityMembersSqlxDatabase::make_repository(opened),
        channels.identities().identities_attributes(),
        channels.identities().credentials(),
        &identifier,
        RealAuthority::PROJECT.to_owned(),
        Some(lifetime),
        None,
        false,
    );
    context.flow_controls().add_consumer(&"credential_issuer".into(), &flow_control);
    context.start_worker("credential_issuer", issuer).expect("an issuer");
    let tcp = TcpTransport::get_or_create(context).expect("a TCP transport");
    // It says so a moment after it listens.
    let since = Instant::now();
    let address = loop {
        if let [listener] = &tcp.registry().get_all_listeners()[..] {
            break listener.socket_address();
        }
        assert!(since.elapsed() < PATIENCE, "it has a listener");
        sleep(Duration::from_millis(2)).await;
    };
    (Anchor::at(identifier, history, address), channels)
}

/// What a real node asks of an authority's node, as its command does. An error is what was answered.
impl ManagedNode {
    /// A node that enrolls with a ticket, as the real command does: it redeems the code, and joins.
    #[track_caller]
    pub fn enrolled(ticket: &str) -> ManagedNode {
        let mut node = ManagedNode::start();
        let (anchor, code) = Anchor::read_ticket(ticket);
        node.redeem(&anchor, &code).expect("the ticket is good");
        node.join(&anchor);
        node
    }

    /// Makes somebody a member, with these attributes; it must be an enroller.
    pub fn add_member(
        &self,
        authority: &Anchor,
        member: &Identifier,
        attributes: &[(&str, &str)],
    ) -> Result<(), String> {
        let (member, attributes) = (member.clone(), texts(attributes));
        self.ask(authority, async |context, client| client.add_member(context, member, attributes).await)
    }

    /// The attributes of one member.
    pub fn member(&self, authority: &Anchor, member: &Identifier) -> Result<Texts, String> {
        let entry = self.ask(authority, async |context, client| client.show_member(context, member).await)?;
        Ok(entry_texts(&entry))
    }

    /// All members and their attributes.
    pub fn members(&self, authority: &Anchor) -> Result<BTreeMap<Identifier, Texts>, String> {
        let members = self.ask(authority, async |context, client| client.list_members(context).await)?;
        Ok(members.iter().map(|(member, entry)| (member.clone(), entry_texts(entry))).collect())
    }

    /// All members.
    pub fn member_ids(&self, authority: &Anchor) -> Result<Vec<Identifier>, String> {
        let mut members = self.ask(authority, async |context, client| client.list_member_ids(context).await)?;
        members.sort();
        Ok(members)
    }

    /// Makes somebody a stranger again.
    pub fn delete_member(&self, authority: &Anchor, member: &Identifier) -> Result<(), String> {
        self.ask(authority, async |context, client| client.delete_member(context, member).await)
    }

    /// Makes strangers of all members but itself.
    pub fn delete_members(&self, authority: &Anchor) -> Result<(), String> {
        self.ask(authority, async |context, client| client.delete_all_members(context).await)
    }

    /// A one-time code, in hexadecimal, that makes a member with these attributes of who redeems it; as often, and for
    /// so long, as the authority likes when nothing is said about it.
    pub fn create_code(
        &self,
        authority: &Anchor,
        attributes: &[(&str, &str)],
        lifetime: Option<Duration>,
        uses: Option<u64>,
    ) -> Result<String, String> {
        let attributes = texts(attributes);
        let create = async |context: &_, client: &AuthorityNodeClient| {
            client.create_token(context, attributes, lifetime, uses).await
        };
        Ok(hex::encode(self.ask(authority, create)?.code()))
    }

    /// Redeems a one-time code.
    pub fn redeem(&self, authority: &Anchor, code: &str) -> Result<(), String> {
        let code: OneTimeCode = code.parse().expect("a one-time code in hexadecimal");
        self.ask(authority, async |context, client| TokenAcceptor::present_token(client, context, code).await)
    }

    /// Has a credential made for itself.
    pub fn fetch_credential(&self, authority: &Anchor) -> Result<Vec<u8>, String> {
        let issue =
            async |context: &_, client: &AuthorityNodeClient| Enrollment::issue_credential(client, context).await;
        Ok(encode(&self.ask(authority, issue)?))
    }

    fn ask<T, E: Display>(
        &self,
        authority: &Anchor,
        question: impl AsyncFnOnce(&Context, &AuthorityNodeClient) -> Result<T, E>,
    ) -> Result<T, String> {
        let route = authority.route.parse().expect("a route");
        self.run(async |node, context| {
            let client =
                node.create_authority_client_with_authority(context, &authority.identifier, &route, None).await;
            let client = client.expect("a client");
            let client = client.with_request_timeout(&PATIENCE).with_secure_channel_timeout(&PATIENCE);
            question(context, &client).await.map_err(|e| e.to_string())
        })
    }
}

fn texts(attributes: &[(&str, &str)]) -> Texts {
    attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn entry_texts(entry: &AttributesEntry) -> Texts {
    entry.attrs().iter().map(|(name, value)| (text(name), text(value))).collect()
}
