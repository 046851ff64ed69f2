//! Whether a node does what it shall: for probes (`ockam health`) and for the watchdog of a service manager.

use crate::api::{
    AuthorityInfo, EngineHealth, HealthInfo, HealthStatus, RelayInfo, TcpInletInfo, TcpListenerInfo, TcpOutletInfo,
    WayStatus,
};
use crate::error::Error;
use crate::node::Node;
use ockam_engine_abi::Command;
use std::time::Duration;

/// How long the engine may take to answer a probe. Less than that waits, so that it is told who is silent.
pub(crate) const ENGINE_ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Whether every core of the engine answers within `limit`. One that is being started again does not.
pub(crate) async fn engine_answers(node: &Node, limit: Duration) -> bool {
    let Some(engine) = node.engine_now() else { return false };
    // The rules that are in force: a command that each core carries out, and that changes nothing.
    let rules = node.transit_rules(&node.desired());
    let answered = engine.link.apply(|request| Command::SetTransit { request, rules });
    matches!(tokio::time::timeout(limit, answered).await, Ok(Ok(())))
}

/// What a node shall have.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) listeners: Vec<TcpListenerInfo>,
    pub(crate) inlets: Vec<TcpInletInfo>,
    pub(crate) outlets: Vec<TcpOutletInfo>,
    pub(crate) relays: Vec<RelayInfo>,
    pub(crate) authority: Option<AuthorityInfo>,
    /// Why the node cannot prove who it is.
    pub(crate) identity: Option<Error>,
}

/// What a node whose control answers is, as a whole.
pub(crate) fn info(node: String, is_preparing: bool, engine: EngineHealth, parts: Parts) -> HealthInfo {
    let Parts { listeners, inlets, outlets, relays, authority, identity } = parts;
    let mut problems = Vec::new();
    if !engine.brief.running {
        problems.push("its engine is being started again".to_owned());
    } else if !engine.answers {
        problems.push("its engine does not answer".to_owned());
    }
    let status = if problems.is_empty() { HealthStatus::Degraded } else { HealthStatus::Silent };
    if is_preparing {
        problems.push("what its file says is not all there yet".to_owned());
    }
    let why = |error: &Option<String>| error.clone().unwrap_or_else(|| "not yet up".into());
    for listener in listeners.iter().filter(|it| !it.up) {
        problems.push(format!("the listener {} is down: {}", listener.address, why(&listener.error)));
    }
    for inlet in inlets.iter().filter(|it| it.status == WayStatus::Down) {
        problems.push(format!("the inlet {} ({}) is down: {}", inlet.alias, inlet.from, why(&inlet.error)));
    }
    for relay in relays.iter().filter(|it| it.status == WayStatus::Down) {
        problems.push(format!("the relay {} is down: {}", relay.name, why(&relay.error)));
    }
    // No secure channel begins or is answered then.
    if let Some(error) = identity {
        problems.push(format!("it cannot prove who it is: {error}"));
    }
    // Peers that believe the same authority do not let it pass then. One that only cannot be reached just now is none.
    if let Some(AuthorityInfo { credential_expires_at: None, error: Some(error), .. }) = &authority {
        problems.push(format!("it has no credential of its authority: {error}"));
    }
    let status = if problems.is_empty() { HealthStatus::Ready } else { status };
    HealthInfo {
        node,
        status,
        control: true,
        engine: Some(engine),
        listeners,
        inlets,
        outlets,
        relays,
        authority,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EngineBrief;

    fn engine(running: bool, answers: bool) -> EngineHealth {
        let brief = EngineBrief {
            running,
            pid: 1,
            version: "1".into(),
            driver: "epoll".into(),
            driver_reason: "asked for".into(),
            cores: 1,
            uptime_s: 1,
            restarts: 0,
        };
        EngineHealth { answers, brief }
    }

    fn inlet(status: WayStatus, error: Option<&str>) -> TcpInletInfo {
        TcpInletInfo {
            alias: "db".into(),
            from: "127.0.0.1:5432".into(),
            to: "/secure/api/service/outlet".into(),
            status,
            error: error.map(str::to_owned),
            identifier: None,
            authorized: vec![],
            connection_wait_ms: 5000,
            connections: 0,
            repaired: 0,
        }
    }

    fn relay(status: WayStatus) -> RelayInfo {
        RelayInfo {
            name: "web".into(),
            address: "forward_to_web".into(),
            at: "/secure/api".into(),
            status,
            error: None,
            identifier: None,
        }
    }

    #[test]
    fn a_node_is_as_well_as_what_is_worst() {
        let listener = |up| TcpListenerInfo {
            address: "127.0.0.1:4000".into(),
            flow_control_id: String::new(),
            up,
            error: (!up).then(|| "busy".into()),
        };
        let outlet = TcpOutletInfo {
            address: "outlet".into(),
            to: "db:5432".into(),
            tls: false,
            allow_plain: false,
            targets: vec![],
            error: Some("it does not resolve".into()),
        };
        let (up, down) = (WayStatus::Up, WayStatus::Down);
        let preparing = info("n1".into(), true, engine(true, true), Parts::default());
        assert_eq!((preparing.status, preparing.problems.len()), (HealthStatus::Degraded, 1));
        for (engine, listeners, inlets, relays, status, problems) in [
            (engine(true, true), vec![], vec![], vec![], HealthStatus::Ready, vec![]),
            (
                engine(true, true),
                vec![listener(true)],
                vec![inlet(up, None)],
                vec![relay(up)],
                HealthStatus::Ready,
                vec![],
            ),
            (
                engine(true, true),
                vec![listener(false)],
                vec![inlet(up, None)],
                vec![],
                HealthStatus::Degraded,
                vec!["the listener 127.0.0.1:4000 is down: busy"],
            ),
            (
                engine(true, true),
                vec![],
                vec![inlet(up, None), inlet(down, Some("no route"))],
                vec![relay(down)],
                HealthStatus::Degraded,
                vec!["the inlet db (127.0.0.1:5432) is down: no route", "the relay web is down: not yet up"],
            ),
            (engine(true, false), vec![], vec![], vec![], HealthStatus::Silent, vec!["its engine does not answer"]),
            (
                engine(false, false),
                vec![],
                vec![inlet(down, None)],
                vec![],
                HealthStatus::Silent,
                vec!["its engine is being started again", "the inlet db (127.0.0.1:5432) is down: not yet up"],
            ),
        ] {
            // A target of an outlet is another program: whether it runs says nothing of the node.
            let parts = Parts { listeners, inlets, outlets: vec![outlet.clone()], relays, ..Parts::default() };
            let health = info("n1".into(), false, engine, parts);
            assert_eq!((health.status, health.problems), (status, problems.into_iter().map(str::to_owned).collect()));
        }
    }

    #[test]
    fn a_node_that_cannot_prove_who_it_is_is_not_ready() {
        let identity = Some(Error::internal("the vault does not open"));
        let health = info("n1".into(), false, engine(true, true), Parts { identity, ..Parts::default() });
        assert_eq!(health.status, HealthStatus::Degraded);
        assert!(health.problems[0].contains("the vault does not open"), "{:?}", health.problems);
    }

    #[test]
    fn a_node_without_a_credential_of_its_authority_is_not_ready() {
        let authority = |credential_expires_at, error: Option<&str>| AuthorityInfo {
            identifier: "I".into(),
            route: "/secure/api".into(),
            scope: "p".into(),
            reachable: false,
            revocations: None,
            credential_expires_at,
            error: error.map(str::to_owned),
        };
        for (authority, status) in [
            (authority(None, None), HealthStatus::Ready),
            (authority(Some(5), Some("it does not answer")), HealthStatus::Ready),
            (authority(None, Some("it does not answer")), HealthStatus::Degraded),
        ] {
            let parts = Parts { authority: Some(authority.clone()), ..Parts::default() };
            let health = info("n1".into(), false, engine(true, true), parts);
            assert_eq!((health.status, health.authority), (status, Some(authority)));
        }
    }
}
