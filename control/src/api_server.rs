//! The API (`api.rs`) on the node's Unix socket: HTTP/1.1 for callers of our own user and of root.

use crate::api::{
    AddConsumer, AuthorityInfo, BODY_BYTES_MAX, ChannelRole, CheckPolicy, ConnectionOrigin, CreatePolicy, CreateRelay,
    CreateSecureChannel, CreateSecureChannelListener, CreateTcpConnection, CreateTcpInlet, CreateTcpListener,
    CreateTcpOutlet, CredentialInfo, EngineBrief, EngineHealth, EngineInfo, EngineStats, FlowControlInfo, HealthInfo,
    MESSAGE_BODY_BYTES_MAX, MessageReply, NodeInfo, NodeStatus, PolicyDecision, PolicyInfo, PoolInfo, RelayInfo,
    RelayServiceInfo, ResourceType, SecureChannelInfo, SecureChannelListenerInfo, SendMessage, ServiceInfo,
    StartService, Stopped, StoreCredential, TcpConnectionInfo, TcpInletInfo, TcpListenerInfo, TcpOutletInfo,
    WorkerInfo, path,
};
use crate::channels;
use crate::engine_link::cookie::Cookie;
use crate::engine_link::{Dump, DumpedLink};
use crate::error::Error;
use crate::node::{Engine, Node};
use crate::portals::{inlets, outlets};
use crate::relays;
use crate::store::ListenerRow;
use crate::store::node::FLOW_CONTROL_INITIATED;
use crate::supervisor::Supervisor;
use crate::text::escape;
use crate::trust;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ockam_engine_abi::counter::Counter;
use ockam_engine_abi::{CloseReason, Counters, DropReason, FLOW_CONTROL_DIALED, LinkId, LinkOrigin};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

/// How long a caller may take for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long a caller may take for the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// Callers served at the same time; further ones wait in the backlog.
const CALLERS_MAX: u32 = 128;

/// How long answers that are being written may take after the node has ended.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(1);

/// What handlers share.
#[derive(Clone)]
struct Api {
    supervisor: Arc<Supervisor>,
    /// Set when the node was asked to end and has ended.
    ended: watch::Sender<bool>,
}

impl Api {
    fn node(&self) -> &Arc<Node> {
        self.supervisor.node()
    }
}

/// Serves until the node has ended, by the API or because `stop` came true.
pub(crate) async fn serve(listener: UnixListener, supervisor: Arc<Supervisor>, ended: watch::Sender<bool>) {
    let router = router(Api { supervisor, ended: ended.clone() });
    let callers = Arc::new(Semaphore::new(CALLERS_MAX as usize));
    let mut end = ended.subscribe();
    loop {
        let permit = callers.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a caller");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = over(&mut end) => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let mut end = ended.subscribe();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = check_caller(&stream) {
                tracing::warn!(%error, "a caller was refused");
                refuse(stream, &error).await;
                return;
            }
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = over(&mut end) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a caller went away");
            }
        });
    }
    let _ = tokio::time::timeout(LAST_ANSWERS_LIMIT, callers.acquire_many(CALLERS_MAX)).await;
}

async fn over(end: &mut watch::Receiver<bool>) {
    // An error means that there is nobody left who could say it.
    let _ = end.wait_for(|ended| *ended).await;
}

fn check_caller(stream: &UnixStream) -> Result<(), Error> {
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(caller) if caller.uid() == ours || caller.uid() == 0 => Ok(()),
        Ok(caller) => Err(Error::OtherUser { user: caller.uid(), ours }),
        Err(_) => Err(Error::OtherUser { user: u32::MAX, ours }),
    }
}

async fn refuse(mut stream: UnixStream, error: &Error) {
    use tokio::io::AsyncWriteExt;
    let body = serde_json::to_string(&error.body()).expect("an error has string keys");
    let head = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/json";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // It was refused already; whether it hears why is up to it.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}

fn router(api: Api) -> Router {
    let one = |path: &str| format!("{path}/{{id}}");
    Router::new()
        .route(path::NODE, get(node))
        .route(path::HEALTH, get(health))
        .route(path::NODE_STOP, post(stop))
        .route(path::TCP_LISTENERS, get(listeners).post(create_listener))
        .route(&one(path::TCP_LISTENERS), get(listener).delete(delete_listener))
        .route(path::TCP_CONNECTIONS, get(connections).post(create_connection))
        .route(&one(path::TCP_CONNECTIONS), get(connection).delete(delete_connection))
        .route(path::SERVICES, get(services).post(start_service))
        .route(path::SECURE_CHANNELS, get(secure_channels).post(create_secure_channel))
        .route(&one(path::SECURE_CHANNELS), get(secure_channel).delete(delete_secure_channel))
        .route(path::SECURE_CHANNEL_LISTENERS, get(channel_listeners).post(create_channel_listener))
        .route(&one(path::SECURE_CHANNEL_LISTENERS), get(channel_listener).delete(delete_channel_listener))
        .route(path::RELAYS, get(relays_here).post(create_relay))
        .route(&one(path::RELAYS), get(relay).delete(delete_relay))
        .route(path::RELAY_SERVICES, get(relay_services))
        .route(path::TCP_OUTLETS, get(tcp_outlets).post(create_tcp_outlet))
        .route(&one(path::TCP_OUTLETS), get(tcp_outlet).delete(delete_tcp_outlet))
        .route(path::TCP_INLETS, get(tcp_inlets).post(create_tcp_inlet))
        .route(&one(path::TCP_INLETS), get(tcp_inlet).delete(delete_tcp_inlet))
        .route(path::WORKERS, get(workers))
        .route(path::FLOW_CONTROLS, get(flow_controls))
        .route(path::CONSUMERS, post(add_consumer))
        .route(path::POLICIES, get(policies).post(create_policy).delete(delete_policy))
        .route(path::POLICIES_CHECK, post(check_policy))
        .route(path::CREDENTIALS, get(credentials).post(store_credential).delete(forget_credentials))
        .route(path::AUTHORITY, get(authority))
        .route(path::ENGINE, get(engine))
        .route(path::ENGINE_STATS, get(stats))
        .route(path::ENGINE_RESTART, post(restart))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(
            Router::new()
                .route(path::MESSAGES, post(send_message))
                .layer(DefaultBodyLimit::max(MESSAGE_BODY_BYTES_MAX)),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

// ---- how requests come in and answers go out

type Answer<T> = Result<Json<T>, Error>;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}

/// The JSON body of a request.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Response> {
        let bad = |why: String| Error::BadData {
            what: "the body of the request".into(),
            why,
            fix: "See the API's types: JSON, without unknown fields.".into(),
        };
        let read = tokio::time::timeout(BODY_LIMIT, Bytes::from_request(request, api)).await;
        let body = match read {
            Ok(Ok(body)) => body,
            Ok(Err(rejection)) => {
                return Err((rejection.status(), Json(bad(rejection.body_text()).body())).into_response());
            }
            Err(_) => {
                let why = format!("it did not arrive within {} s", BODY_LIMIT.as_secs());
                let hang_up = [(header::CONNECTION, "close")];
                return Err((StatusCode::REQUEST_TIMEOUT, hang_up, Json(bad(why).body())).into_response());
            }
        };
        serde_json::from_slice(&body).map(Body).map_err(|error| bad(error.to_string()).into_response())
    }
}

/// The `{id}` of a path.
struct Id(String);

impl FromRequestParts<Api> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let Path(id) = Path::<String>::from_request_parts(parts, api).await.map_err(|_| Error::BadArgument {
            argument: "the path".into(),
            value: escape(parts.uri.path().as_bytes(), 300),
            why: "has an id that is not UTF-8".into(),
            fix: "Percent-encode the id as it was shown.".into(),
        })?;
        Ok(Id(id))
    }
}

async fn no_such_path(request: Request) -> Response {
    let error = Error::BadArgument {
        argument: "the path".into(),
        value: escape(request.uri().path().as_bytes(), 300),
        why: "is not one of this API".into(),
        fix: format!("Begin with GET {}.", path::NODE),
    };
    (StatusCode::NOT_FOUND, Json(error.body())).into_response()
}

async fn no_such_method(request: Request) -> Response {
    let error = Error::BadArgument {
        argument: "the method".into(),
        value: request.method().to_string(),
        why: format!("does nothing on {}", escape(request.uri().path().as_bytes(), 300)),
        fix: "The header Allow names those that do.".into(),
    };
    (StatusCode::METHOD_NOT_ALLOWED, Json(error.body())).into_response()
}

/// Runs a change to its end even when the caller goes away in its midst.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(change).await.unwrap_or_else(|error| Err(Error::internal(format!("a request failed: {error}"))))
}

// ---- the node

async fn node(State(api): State<Api>) -> Answer<NodeInfo> {
    node_info(&api.supervisor).await.map(Json)
}

/// Everything about a node that runs.
pub(crate) async fn node_info(supervisor: &Supervisor) -> Result<NodeInfo, Error> {
    let node = supervisor.node();
    let engine = node.engine_now();
    let dump = match &engine {
        // An engine that ends just now has no links.
        Some(engine) => engine.link.dump().await.unwrap_or_default(),
        None => Dump::default(),
    };
    let desired = node.desired();
    Ok(NodeInfo {
        name: node.name(),
        status: NodeStatus::Running,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: node.started.elapsed().as_secs(),
        engine: brief(node, engine.as_deref()),
        tcp_listeners: desired.listeners.iter().map(|row| listener_info(node, row)).collect(),
        tcp_connections: connection_infos(node, &dump.links),
        services: service_infos(node),
        identifier: node.channels.identifier(),
        secure_channel_listeners: channel_listener_infos(node),
        secure_channels: initiated(node.channels.infos(node, &dump)),
        secure_channels_accepted: node.channels.accepted(),
        outlets: outlets::infos(node),
        inlets: inlets::infos(node, &dump).into_iter().map(|(_, info)| info).collect(),
        relays: relays::infos(node),
        transit_rules: desired.transit.iter().map(crate::transit::text).collect(),
        authority: node.trust.authority_info(node),
        control_log: node.dir.control_log().display().to_string(),
        engine_log: node.dir.engine_log().display().to_string(),
    })
}

async fn health(State(api): State<Api>) -> Json<HealthInfo> {
    Json(health_info(api.node(), crate::health::ENGINE_ANSWER_LIMIT).await)
}

/// Whether a node does what it shall, where its engine may take as long as `limit` to answer.
pub(crate) async fn health_info(node: &Arc<Node>, limit: Duration) -> HealthInfo {
    // A file system that hangs is no answer to what is asked here.
    let identity = tokio::time::timeout(limit, node.channels.identity_problem());
    let (answers, identity) = tokio::join!(crate::health::engine_answers(node, limit), identity);
    let engine = EngineHealth { answers, brief: brief(node, node.engine_now().as_deref()) };
    let listeners = node.desired().listeners.iter().map(|row| listener_info(node, row)).collect();
    // The engine that does not answer is not asked.
    let inlets = inlets::infos(node, &Dump::default()).into_iter().map(|(_, info)| info).collect();
    let is_preparing = node.is_preparing.load(Ordering::Relaxed);
    let (outlets, relays) = (outlets::infos(node), relays::infos(node));
    let authority = node.trust.authority_info(node);
    let identity = identity.unwrap_or(None);
    let parts = crate::health::Parts { listeners, inlets, outlets, relays, authority, identity };
    crate::health::info(node.name(), is_preparing, engine, parts)
}

async fn stop(State(api): State<Api>) -> Answer<Stopped> {
    tracing::info!("told to stop");
    let answer = api.clone();
    to_its_end(async move {
        let engine_killed = api.supervisor.stop().await;
        api.ended.send_replace(true);
        Ok(engine_killed)
    })
    .await
    .map(|engine_killed| Json(Stopped { name: answer.node().name(), engine_killed }))
}

// ---- listeners

fn listener_info(node: &Node, row: &ListenerRow) -> TcpListenerInfo {
    let error = node.listener_error(row.bit.into()).map(|error| error.to_string());
    TcpListenerInfo {
        address: row.address.to_string(),
        flow_control_id: row.flow_control.clone(),
        up: error.is_none(),
        error,
    }
}

async fn listeners(State(api): State<Api>) -> Json<Vec<TcpListenerInfo>> {
    let node = api.node();
    Json(node.desired().listeners.iter().map(|row| listener_info(node, row)).collect())
}

async fn listener(State(api): State<Api>, Id(id): Id) -> Answer<TcpListenerInfo> {
    Ok(Json(listener_info(api.node(), &api.node().listener(&id)?)))
}

async fn create_listener(State(api): State<Api>, Body(request): Body<CreateTcpListener>) -> Answer<TcpListenerInfo> {
    let address = crate::resolve::to_listen(&request.address).await?;
    to_its_end(async move {
        let row = api.node().create_listener(address).await?;
        Ok(Json(listener_info(api.node(), &row)))
    })
    .await
}

async fn delete_listener(State(api): State<Api>, Id(id): Id) -> Answer<TcpListenerInfo> {
    let row = api.node().listener(&id)?;
    let info = listener_info(api.node(), &row);
    to_its_end(async move { api.node().delete_listener(&row).await }).await?;
    Ok(Json(info))
}

// ---- connections

fn flow_control_id(node: &Node, listeners: &[ListenerRow], bit: u8) -> String {
    match listeners.iter().find(|row| row.bit == bit) {
        _ if bit == FLOW_CONTROL_DIALED => node.dialed_flow_control.clone(),
        Some(row) => row.flow_control.clone(),
        // Its listener is gone.
        None => String::new(),
    }
}

fn link_text(link: LinkId) -> String {
    format!("{}.{}.{}", link.core(), link.index(), link.generation())
}

fn connection_infos(node: &Node, links: &[DumpedLink]) -> Vec<TcpConnectionInfo> {
    let listeners = node.desired().listeners;
    links.iter().map(|link| connection_info(node, &listeners, link)).collect()
}

fn connection_info(node: &Node, listeners: &[ListenerRow], link: &DumpedLink) -> TcpConnectionInfo {
    TcpConnectionInfo {
        from: node.name(),
        to: link.peer.to_string(),
        address: format!("/worker/{}", escape(&link.address, 255)),
        local: link.local.to_string(),
        origin: match link.origin {
            LinkOrigin::Accepted => ConnectionOrigin::Accepted,
            LinkOrigin::Dialed => ConnectionOrigin::Dialed,
            LinkOrigin::Transit => ConnectionOrigin::Transit,
        },
        flow_control_id: flow_control_id(node, listeners, link.flow_control),
        link: link_text(link.link),
        frames_in: link.traffic.frames_in,
        frames_out: link.traffic.frames_out,
        bytes_in: link.traffic.bytes_in,
        bytes_out: link.traffic.bytes_out,
        queued_bytes: link.queued_bytes,
    }
}

async fn dump(node: &Node, engine: &Engine) -> Result<Dump, Error> {
    engine.link.dump().await.map_err(|error| node.command_failed("say what it has", error))
}

async fn connections(State(api): State<Api>) -> Answer<Vec<TcpConnectionInfo>> {
    let engine = api.node().engine().await?;
    Ok(Json(connection_infos(api.node(), &dump(api.node(), &engine).await?.links)))
}

async fn create_connection(
    State(api): State<Api>,
    Body(request): Body<CreateTcpConnection>,
) -> Answer<TcpConnectionInfo> {
    let addresses = crate::resolve::to_dial(&request.to).await?;
    to_its_end(async move {
        let node = api.node();
        let engine = node.engine().await?;
        let link = node.dial(&engine, &request.to, &addresses, &Cookie::Connection).await?;
        Ok(Json(TcpConnectionInfo {
            from: node.name(),
            to: link.peer.to_string(),
            address: format!("/worker/{}", escape(&link.address, 255)),
            local: link.local.to_string(),
            origin: ConnectionOrigin::Dialed,
            flow_control_id: node.dialed_flow_control.clone(),
            link: link_text(link.link),
            frames_in: 0,
            frames_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            queued_bytes: 0,
        }))
    })
    .await
}

async fn connection(State(api): State<Api>, Id(id): Id) -> Answer<TcpConnectionInfo> {
    let node = api.node();
    let link = node.connection(&*node.engine().await?, &id).await?;
    Ok(Json(connection_info(node, &node.desired().listeners, &link)))
}

async fn delete_connection(State(api): State<Api>, Id(id): Id) -> Answer<TcpConnectionInfo> {
    let node = api.node();
    let engine = node.engine().await?;
    let link = node.connection(&engine, &id).await?;
    engine.link.close(link.link).await;
    Ok(Json(connection_info(node, &node.desired().listeners, &link)))
}

// ---- secure channels

fn initiated(mut infos: Vec<SecureChannelInfo>) -> Vec<SecureChannelInfo> {
    infos.retain(|info| info.role == ChannelRole::Initiator);
    infos
}

async fn channel_infos(node: &Node) -> Vec<SecureChannelInfo> {
    // Without an engine no channel lives, and those that shall be are known all the same.
    let dump = match node.engine_now() {
        Some(engine) => engine.link.dump().await.unwrap_or_default(),
        None => Dump::default(),
    };
    node.channels.infos(node, &dump)
}

async fn secure_channels(State(api): State<Api>) -> Json<Vec<SecureChannelInfo>> {
    Json(channel_infos(api.node()).await)
}

/// The address may be written as in a route.
fn channel_address(id: &str) -> String {
    let name = ["/service/", "/worker/", "0#"].iter().find_map(|front| id.strip_prefix(front)).unwrap_or(id);
    name.to_owned()
}

async fn find_channel(node: &Node, address: &str) -> Result<SecureChannelInfo, Error> {
    let found = channel_infos(node).await.into_iter().find(|info| info.address == address);
    found.ok_or_else(|| node.no_such("secure channel", address, "ockam secure-channel list"))
}

async fn secure_channel(State(api): State<Api>, Id(id): Id) -> Answer<SecureChannelInfo> {
    find_channel(api.node(), &channel_address(&id)).await.map(Json)
}

/// Ends with its caller: nobody else would know the address of the channel.
async fn create_secure_channel(
    State(api): State<Api>,
    Body(request): Body<CreateSecureChannel>,
) -> Answer<SecureChannelInfo> {
    channels::create(api.node(), request).await.map(Json)
}

async fn delete_secure_channel(State(api): State<Api>, Id(id): Id) -> Answer<SecureChannelInfo> {
    let address = channel_address(&id);
    let info = find_channel(api.node(), &address).await?;
    to_its_end(async move { channels::delete(api.node(), &address).await }).await?;
    Ok(Json(info))
}

fn channel_listener_infos(node: &Node) -> Vec<SecureChannelListenerInfo> {
    node.desired().channel_listeners.iter().map(|row| node.channels.listener_info(row)).collect()
}

async fn channel_listeners(State(api): State<Api>) -> Json<Vec<SecureChannelListenerInfo>> {
    Json(channel_listener_infos(api.node()))
}

async fn channel_listener(State(api): State<Api>, Id(id): Id) -> Answer<SecureChannelListenerInfo> {
    let row = api.node().channel_listener_named(&channel_address(&id))?;
    Ok(Json(api.node().channels.listener_info(&row)))
}

async fn create_channel_listener(
    State(api): State<Api>,
    Body(request): Body<CreateSecureChannelListener>,
) -> Answer<SecureChannelListenerInfo> {
    let authorized = channels::read_list("authorized", &request.authorized)?;
    to_its_end(async move {
        let node = api.node();
        let identity = match &request.identity {
            Some(name) => Some(channels::own(node, Some(name)).await?),
            None => None,
        };
        let row = node.create_channel_listener(&request.address, identity, authorized).await?;
        Ok(Json(node.channels.listener_info(&row)))
    })
    .await
}

async fn delete_channel_listener(State(api): State<Api>, Id(id): Id) -> Answer<SecureChannelListenerInfo> {
    let row = api.node().channel_listener_named(&channel_address(&id))?;
    let info = api.node().channels.listener_info(&row);
    to_its_end(async move { api.node().delete_channel_listener(&row.address).await }).await?;
    Ok(Json(info))
}

// ---- relays

async fn relays_here(State(api): State<Api>) -> Json<Vec<RelayInfo>> {
    Json(relays::infos(api.node()))
}

async fn relay(State(api): State<Api>, Id(id): Id) -> Answer<RelayInfo> {
    relays::find(api.node(), &id).map(Json)
}

async fn create_relay(State(api): State<Api>, Body(request): Body<CreateRelay>) -> Answer<RelayInfo> {
    to_its_end(async move { relays::create(api.node(), request).await }).await.map(Json)
}

async fn delete_relay(State(api): State<Api>, Id(id): Id) -> Answer<RelayInfo> {
    let info = relays::find(api.node(), &id)?;
    to_its_end(async move { relays::delete(api.node(), &id).await }).await?;
    Ok(Json(info))
}

async fn relay_services(State(api): State<Api>) -> Json<Vec<RelayServiceInfo>> {
    Json(api.node().relays.registered())
}

// ---- portals

async fn tcp_outlets(State(api): State<Api>) -> Json<Vec<TcpOutletInfo>> {
    Json(outlets::infos(api.node()))
}

async fn tcp_outlet(State(api): State<Api>, Id(id): Id) -> Answer<TcpOutletInfo> {
    outlets::info(api.node(), &channel_address(&id)).map(Json)
}

async fn create_tcp_outlet(State(api): State<Api>, Body(request): Body<CreateTcpOutlet>) -> Answer<TcpOutletInfo> {
    to_its_end(async move { outlets::create(api.node(), request).await.map(Json) }).await
}

async fn delete_tcp_outlet(State(api): State<Api>, Id(id): Id) -> Answer<TcpOutletInfo> {
    let address = channel_address(&id);
    let info = outlets::info(api.node(), &address)?;
    to_its_end(async move { outlets::delete(api.node(), &address).await }).await?;
    Ok(Json(info))
}

async fn tcp_inlets(State(api): State<Api>) -> Json<Vec<TcpInletInfo>> {
    Json(inlets::all(api.node()).await)
}

async fn tcp_inlet(State(api): State<Api>, Id(alias): Id) -> Answer<TcpInletInfo> {
    inlets::info(api.node(), &alias).await.map(Json)
}

async fn create_tcp_inlet(State(api): State<Api>, Body(request): Body<CreateTcpInlet>) -> Answer<TcpInletInfo> {
    to_its_end(async move { inlets::create(api.node(), request).await.map(Json) }).await
}

async fn delete_tcp_inlet(State(api): State<Api>, Id(alias): Id) -> Answer<TcpInletInfo> {
    let info = inlets::info(api.node(), &alias).await?;
    to_its_end(async move { inlets::delete(api.node(), &alias).await }).await?;
    Ok(Json(info))
}

// ---- policies

/// What a policy is about, in the query of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    resource_type: Option<ResourceType>,
    resource: Option<String>,
}

/// The query of a request.
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Asked<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let Query(asked) =
            Query::<T>::from_request_parts(parts, api).await.map_err(|rejection| Error::BadArgument {
                argument: "the query".into(),
                value: escape(parts.uri.query().unwrap_or_default().as_bytes(), 300),
                why: format!("is not one of this path: {}", rejection.body_text()),
                fix: "See the table of paths in the API's types.".into(),
            })?;
        Ok(Asked(asked))
    }
}

async fn policies(State(api): State<Api>, Asked(about): Asked<About>) -> Json<Vec<PolicyInfo>> {
    Json(trust::policies::list(api.node(), about.resource_type, about.resource.as_deref()))
}

async fn create_policy(State(api): State<Api>, Body(request): Body<CreatePolicy>) -> Answer<PolicyInfo> {
    to_its_end(async move { trust::policies::create(api.node(), request).await.map(Json) }).await
}

async fn delete_policy(State(api): State<Api>, Asked(about): Asked<About>) -> Answer<PolicyInfo> {
    to_its_end(async move { trust::policies::delete(api.node(), about.resource_type, about.resource).await.map(Json) })
        .await
}

async fn check_policy(State(api): State<Api>, Body(request): Body<CheckPolicy>) -> Answer<PolicyDecision> {
    trust::policies::check(api.node(), request).map(Json)
}

// ---- credentials and the authority

/// Which credentials, in the query of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    scope: Option<String>,
    subject: Option<String>,
}

async fn credentials(State(api): State<Api>) -> Json<Vec<CredentialInfo>> {
    Json(api.node().trust.credential_infos())
}

async fn store_credential(State(api): State<Api>, Body(request): Body<StoreCredential>) -> Answer<CredentialInfo> {
    to_its_end(async move { trust::own::store(api.node(), request).await.map(Json) }).await
}

async fn forget_credentials(State(api): State<Api>, Asked(which): Asked<Which>) -> Answer<Vec<CredentialInfo>> {
    to_its_end(async move { trust::own::forget(api.node(), which.scope, which.subject).await.map(Json) }).await
}

async fn authority(State(api): State<Api>) -> Answer<AuthorityInfo> {
    let node = api.node();
    let info = node.trust.authority_info(node);
    info.map(Json).ok_or_else(|| node.no_such("authority", "that it believes", "ockam project list"))
}

// ---- services, workers, flow controls

fn service_infos(node: &Node) -> Vec<ServiceInfo> {
    node.desired().services.into_iter().map(|(address, service)| ServiceInfo { service, address }).collect()
}

async fn services(State(api): State<Api>) -> Json<Vec<ServiceInfo>> {
    Json(service_infos(api.node()))
}

async fn start_service(State(api): State<Api>, Body(request): Body<StartService>) -> Answer<ServiceInfo> {
    let service = request.service;
    let address = request.address.unwrap_or_else(|| service.name().into());
    to_its_end(async move {
        api.node().start_service(service, &address).await?;
        Ok(Json(ServiceInfo { service, address }))
    })
    .await
}

async fn workers(State(api): State<Api>) -> Answer<Vec<WorkerInfo>> {
    let node = api.node();
    let dump = dump(node, &*node.engine().await?).await?;
    let desired = node.desired();
    let links = desired.listeners.iter().map(|row| (row.bit, &row.flow_control));
    let channels = desired.channel_listeners.iter().map(|row| (row.bit, &row.flow_control));
    let initiated = (FLOW_CONTROL_INITIATED, &node.initiated_flow_control);
    let all: Vec<(u8, &String)> = [(FLOW_CONTROL_DIALED, &node.dialed_flow_control)]
        .into_iter()
        .chain(links)
        .chain(channels)
        .chain([initiated])
        .collect();
    let reachable_from =
        |mask: u64| all.iter().filter(|(bit, _)| mask & 1 << bit != 0).map(|(_, id)| (*id).clone()).collect();
    let addresses = dump.addresses.iter().map(|found| WorkerInfo {
        address: escape(&found.address, 255),
        kind: found.target.name().into(),
        reachable_from: reachable_from(found.reachable),
    });
    let links = dump.links.iter().map(|link| WorkerInfo {
        address: escape(&link.address, 255),
        kind: "link".into(),
        reachable_from: Vec::new(),
    });
    let channels = dump.channels.iter().map(|channel| WorkerInfo {
        address: escape(&channel.encryptor, 255),
        kind: "channel".into(),
        reachable_from: Vec::new(),
    });
    Ok(Json(addresses.chain(links).chain(channels).collect()))
}

async fn flow_controls(State(api): State<Api>) -> Json<Vec<FlowControlInfo>> {
    let node = api.node();
    let desired = node.desired();
    let relayed = node.relays.registered();
    let info = |bit: u8, flow_control_id: &str, producer: String| {
        let services = desired.services.iter();
        let reached = services.filter(|(address, service)| desired.reachable(address, *service) & 1 << bit != 0);
        let added = desired.consumers.iter().filter(|(consumer_bit, _)| *consumer_bit == bit);
        let listeners = desired.channel_listeners.iter().map(|row| &row.address);
        let outlets = desired.outlets.iter().map(|row| &row.address);
        let reached = reached.map(|(address, _)| address).chain(listeners).chain(outlets);
        let mut consumers: Vec<String> = reached.chain(added.map(|(_, address)| address)).cloned().collect();
        if relays::REACHABLE & 1 << bit != 0 {
            consumers.extend(relays::SERVICES.map(str::to_owned));
            consumers.extend(relayed.iter().map(|relay| relay.address.clone()));
        }
        consumers.sort();
        consumers.dedup();
        FlowControlInfo { flow_control_id: flow_control_id.into(), producer, consumers }
    };
    let dialed = info(FLOW_CONTROL_DIALED, &node.dialed_flow_control, "dialed".into());
    let listeners = desired.listeners.iter().map(|row| info(row.bit, &row.flow_control, row.address.to_string()));
    let channels = desired.channel_listeners.iter().map(|row| info(row.bit, &row.flow_control, row.address.clone()));
    let initiated = info(FLOW_CONTROL_INITIATED, &node.initiated_flow_control, "secure channels".into());
    Json(std::iter::once(dialed).chain(listeners).chain(channels).chain([initiated]).collect())
}

async fn add_consumer(State(api): State<Api>, Body(request): Body<AddConsumer>) -> Answer<AddConsumer> {
    to_its_end(async move {
        api.node().add_consumer(&request.flow_control_id, &request.address).await?;
        Ok(Json(AddConsumer {
            flow_control_id: request.flow_control_id.to_ascii_lowercase(),
            address: request.address,
        }))
    })
    .await
}

// ---- messages

async fn send_message(State(api): State<Api>, Body(request): Body<SendMessage>) -> Response {
    match crate::messages::send(api.node(), request).await {
        Ok(reply) => json::<MessageReply>(&reply),
        Err(error) => error.into_response(),
    }
}

fn json<T: Serialize>(value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("API types have string keys");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

// ---- the engine

fn brief(node: &Node, engine: Option<&Engine>) -> EngineBrief {
    let restarts = node.restarts.load(Ordering::Relaxed);
    match engine {
        Some(engine) => EngineBrief {
            running: true,
            pid: engine.ready.pid,
            version: engine.ready.version.clone(),
            driver: engine.ready.driver.name().into(),
            driver_reason: engine.ready.driver_reason.clone(),
            cores: engine.ready.cores,
            uptime_s: engine.uptime_s(),
            restarts,
        },
        None => EngineBrief {
            running: false,
            pid: 0,
            version: String::new(),
            driver: String::new(),
            driver_reason: String::new(),
            cores: 0,
            uptime_s: 0,
            restarts,
        },
    }
}

fn read_counters(engine: &Engine) -> Result<Counters, Error> {
    let read = Counters::read(&engine.counters, usize::from(engine.ready.cores));
    read.map_err(|error| Error::internal(format!("the engine's counters cannot be read: {error}")))
}

fn reasons<T: ockam_engine_abi::counter::Place + 'static>(
    counters: &Counters,
    all: &[T],
    name: fn(T) -> &'static str,
) -> BTreeMap<String, u64> {
    all.iter().map(|&reason| (name(reason).to_owned(), counters.total(reason))).collect()
}

async fn engine(State(api): State<Api>) -> Answer<EngineInfo> {
    engine_info(api.node()).await.map(Json)
}

async fn engine_info(node: &Node) -> Result<EngineInfo, Error> {
    let engine = node.engine().await?;
    let dump = dump(node, &engine).await?;
    let counters = read_counters(&engine)?;
    Ok(EngineInfo {
        brief: brief(node, Some(&engine)),
        aead: engine.ready.aead.clone(),
        cpu_features: engine.ready.cpu_features.clone(),
        links_open: counters.total(Counter::LinksOpen),
        links_max_per_core: engine.ready.links_max,
        pool: PoolInfo {
            slot_bytes: engine.ready.slot_bytes,
            slots: u64::from(engine.ready.slots) * u64::from(engine.ready.cores),
            free: counters.total(Counter::SlotsFree),
            kernel: counters.total(Counter::SlotsKernel),
            core: counters.total(Counter::SlotsCore),
            large_used: counters.total(Counter::LargeSlotsUsed),
            assembly_bytes: counters.total(Counter::AssemblyBytes),
        },
        drops: reasons(&counters, DropReason::ALL, DropReason::name),
        closes: reasons(&counters, CloseReason::ALL, CloseReason::name),
        links: connection_infos(node, &dump.links),
    })
}

async fn stats(State(api): State<Api>) -> Answer<EngineStats> {
    let engine = api.node().engine().await?;
    let counters = read_counters(&engine)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Json(EngineStats {
        pid: engine.ready.pid,
        time_ms: now.as_millis() as u64,
        counters: reasons(&counters, Counter::ALL, Counter::name),
        gauges: Counter::ALL.iter().filter(|it| it.is_gauge()).map(|it| it.name().to_owned()).collect(),
        drops: reasons(&counters, DropReason::ALL, DropReason::name),
        closes: reasons(&counters, CloseReason::ALL, CloseReason::name),
        cores: (0..counters.cores())
            .map(|core| Counter::ALL.iter().map(|it| (it.name().to_owned(), counters.of_core(core, *it))).collect())
            .collect(),
    }))
}

async fn restart(State(api): State<Api>) -> Answer<EngineInfo> {
    to_its_end(async move {
        api.supervisor.restart().await?;
        engine_info(api.node()).await.map(Json)
    })
    .await
}
