//! Against a stand-in for the engine.

use super::{inlets, outlets};
use crate::api::{CreateTcpInlet, CreateTcpOutlet, TcpInletInfo, WayStatus};
use crate::engine_link::cookie::Cookie;
use crate::error::Error;
use crate::node::Node;
use crate::testing::{Manner, Peer, PeerIdentity, World, link_address, run};
use ockam_engine_abi::{ChannelEnd, CloseReason, LinkId, Notice, PortalTarget, Refusal, Target};
use ockam_wire::Message;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const PLAIN: &str = "/ip4/127.0.0.1/tcp/9/service/outlet";
const SEALED: &str = "/ip4/127.0.0.1/tcp/9/secure/api/service/outlet";

fn to(world: &World, route: &str) -> CreateTcpInlet {
    CreateTcpInlet {
        from: world.loopback.to_string(),
        to: route.into(),
        alias: Some("db".into()),
        authorized: Vec::new(),
        authorized_on_the_way: Vec::new(),
        identity: None,
        connection_wait_ms: 5_000,
        retry_wait_ms: 20_000,
        wait: true,
        timeout_ms: 60_000,
    }
}

fn target(to: &str) -> CreateTcpOutlet {
    CreateTcpOutlet { to: to.into(), address: None, tls: false, allow_plain: false }
}

/// Waits for what other tasks do.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until_shown(node: &Node, alias: &str, is: impl Fn(&TcpInletInfo) -> bool) -> TcpInletInfo {
    loop {
        let info = inlets::info(node, alias).await.unwrap();
        if is(&info) {
            return info;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Where the connections of the only inlet go.
fn way(world: &World, engine: usize) -> Option<Vec<String>> {
    world.tables(engine, |tables| {
        let inlet = tables.inlets.values().next()?;
        let way = inlet.way.as_ref()?;
        let message = Message::parse(way).unwrap();
        Some(message.onward.iter().map(|address| String::from_utf8(address.name.to_vec()).unwrap()).collect())
    })
}

fn only_link(world: &World, engine: usize) -> LinkId {
    world.tables(engine, |tables| {
        assert_eq!(tables.links.len(), 1);
        *tables.links.keys().next().unwrap()
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_inlet_follows_its_way_and_keeps_its_port() {
    run(async {
        let world = World::new(2);
        let (node, supervisor) = world.control(false).await;
        world.tables(0, |tables| tables.peer = Some(Peer::Echo));
        world.tables(1, |tables| tables.peer = Some(Peer::Echo));
        let info = inlets::create(&node, to(&world, PLAIN)).await.unwrap();
        assert_eq!((info.status, info.to.as_str(), info.error), (WayStatus::Up, PLAIN, None));
        assert_eq!((info.connections, info.repaired, info.identifier), (1, 0, None));
        let link = only_link(&world, 0);
        assert_eq!(way(&world, 0), Some(vec![text(link_address(link)), "outlet".into()]));
        world.tables(0, |tables| {
            let (number, inlet) = tables.inlets.iter().next().unwrap();
            assert_eq!((*number, inlet.wait_ms), (64, 5_000));
        });
        TcpStream::connect(&info.from).unwrap();

        // The link goes: connections wait, and then there is another one.
        world.tables(0, |tables| {
            tables.peer = None;
            tables.links.clear();
        });
        let engine = &world.engines;
        engine.lock().unwrap()[0].say(&Notice::LinkDown { link, reason: CloseReason::Reset });
        until(|| way(&world, 0).is_none().then_some(())).await;
        let down = until_shown(&node, "db", |info| info.status == WayStatus::Down).await;
        assert!(down.error.unwrap().contains("the way is gone"));
        world.tables(0, |tables| tables.peer = Some(Peer::Echo));
        // The question that nobody answered is given up in time.
        let up = until_shown(&node, "db", |info| info.status == WayStatus::Up).await;
        assert_eq!((up.repaired, up.from.as_str()), (1, info.from.as_str()));
        assert_ne!(way(&world, 0), Some(vec![text(link_address(link)), "outlet".into()]));

        // Another engine gets the same socket.
        let watching = tokio::spawn(async move { supervisor.watch().await });
        engine.lock().unwrap()[0].kill();
        TcpStream::connect(&info.from).unwrap();
        until(|| way(&world, 1)).await;
        let up = until_shown(&node, "db", |info| info.status == WayStatus::Up).await;
        assert_eq!((up.repaired, up.from.as_str()), (2, info.from.as_str()));

        inlets::delete(&node, "db").await.unwrap();
        world.tables(1, |tables| assert!(tables.inlets.is_empty()));
        until(|| world.tables(1, |tables| tables.links.is_empty().then_some(()))).await;
        crate::resolve::bind_listener(info.from.parse().unwrap()).unwrap();
        assert!(matches!(inlets::delete(&node, "db").await, Err(Error::NoSuchThing { .. })));
        watching.abort();
    });
}

#[test]
fn the_identity_that_was_met_first_is_met_again_or_nobody() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let (first, second) = (PeerIdentity::new(), PeerIdentity::new());
        world.tables(0, |tables| tables.peer = Some(Peer::Node(first.clone(), Manner::Accepts)));
        let info = inlets::create(&node, to(&world, SEALED)).await.unwrap();
        assert_eq!((info.status, info.identifier), (WayStatus::Up, Some(first.identifier().to_string())));
        let row = node.desired().inlets[0].clone();
        assert_eq!(way(&world, 0), Some(vec![row.session.clone(), "outlet".into()]));
        assert_eq!(row.peer, Some(first.identifier()));
        // It is the inlet's, not one of `secure-channel create`.
        assert!(node.channels.infos(&node, &node.engine().await.unwrap().link.dump().await.unwrap()).is_empty());

        let number = world.tables(0, |tables| {
            tables.peer = Some(Peer::Node(second.clone(), Manner::Accepts));
            tables.channels.pop_first().unwrap().0
        });
        let ended = Notice::ChannelClosed { channel: number, reason: ChannelEnd::LinkGone };
        world.engines.lock().unwrap()[0].say(&ended);
        let says = |info: &TcpInletInfo| info.error.as_ref().is_some_and(|why| why.contains("changed"));
        let stopped = until_shown(&node, "db", says).await;
        assert_eq!((stopped.status, stopped.identifier), (WayStatus::Down, Some(first.identifier().to_string())));
        assert_eq!(way(&world, 0), None);
        inlets::delete(&node, "db").await.unwrap();
        until(|| world.tables(0, |tables| (tables.channels.is_empty() && tables.links.is_empty()).then_some(()))).await;

        // Who may not be there is not accepted in the first place.
        let wanted = CreateTcpInlet { authorized: vec![first.identifier().to_string()], ..to(&world, SEALED) };
        let refused = inlets::create(&node, wanted).await.unwrap_err();
        assert!(matches!(refused, Error::PeerNotAuthorized { .. }) && refused.exit() == 77);
        assert!(node.desired().inlets.is_empty());
        world.tables(0, |tables| assert!(tables.inlets.is_empty()));
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing_and_what_cannot_be_reached_stays() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        world.tables(0, |tables| tables.peer = Some(Peer::Close));
        let busy = node.desired().listeners[0].address;
        let taken = CreateTcpInlet { from: busy.to_string(), ..to(&world, PLAIN) };
        let refused = inlets::create(&node, taken).await.unwrap_err();
        assert_eq!((&refused, refused.exit()), (&Error::AddressBusy { address: busy }, 73));
        let [a, b] = crate::random::bytes::<2>();
        let free = crate::resolve::bind_listener(([127, 101, a, b], 0).into()).unwrap().1;
        world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
        let refused = inlets::create(&node, CreateTcpInlet { from: free.to_string(), ..to(&world, PLAIN) }).await;
        assert!(matches!(refused, Err(Error::EngineRefused { .. })));
        drop(crate::resolve::bind_listener(free).unwrap());
        let once = CreateTcpInlet { retry_wait_ms: 0, wait: false, ..to(&world, PLAIN) };
        assert_eq!(inlets::create(&node, once).await.unwrap_err().exit(), 69);
        for bad in ["", "/ip4/127.0.0.1/tcp/9", "/node/n2/service/outlet", "outlet"] {
            assert_eq!(inlets::create(&node, to(&world, bad)).await.unwrap_err().exit(), 64, "{bad}");
        }
        for bad in [
            CreateTcpInlet { authorized: vec![format!("I{}", "0".repeat(64))], ..to(&world, PLAIN) },
            CreateTcpInlet { alias: Some("a:b".into()), ..to(&world, PLAIN) },
            CreateTcpInlet { from: "unix:s".into(), ..to(&world, PLAIN) },
            CreateTcpInlet { timeout_ms: 0, ..to(&world, PLAIN) },
            CreateTcpInlet { connection_wait_ms: u64::MAX, ..to(&world, PLAIN) },
            CreateTcpInlet { authorized_on_the_way: vec![Vec::new()], ..to(&world, SEALED) },
        ] {
            assert_eq!(inlets::create(&node, bad.clone()).await.unwrap_err().exit(), 64, "{bad:?}");
        }
        assert!(node.desired().inlets.is_empty());
        until(|| world.tables(0, |tables| (tables.inlets.is_empty() && tables.links.is_empty()).then_some(()))).await;

        // Nobody is there: it waits for somebody.
        let late = CreateTcpInlet { timeout_ms: 200, ..to(&world, PLAIN) };
        let info = inlets::create(&node, late).await.unwrap();
        assert_eq!(info.status, WayStatus::Down);
        let again = inlets::create(&node, to(&world, PLAIN)).await.unwrap_err();
        assert!(matches!(again, Error::NameTaken { .. }) && again.exit() == 73);
        world.tables(0, |tables| tables.peer = Some(Peer::Echo));
        until_shown(&node, "db", |info| info.status == WayStatus::Up).await;
    });
}

#[test]
fn an_inlet_on_a_unix_socket_leads_to_an_outlet_of_the_same_node() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let path = world.dir.path().join("s");
        let from = format!("unix:{}", path.display());
        let here = CreateTcpInlet { from: from.clone(), alias: None, ..to(&world, "/service/outlet") };
        let info = inlets::create(&node, here.clone()).await.unwrap();
        assert_eq!((info.from.as_str(), info.status, info.alias.len()), (from.as_str(), WayStatus::Up, 8));
        assert_eq!(way(&world, 0), Some(vec!["outlet".into()]));
        UnixStream::connect(&path).unwrap();
        assert!(matches!(inlets::create(&node, here).await, Err(Error::ListenerExists { .. })));
        inlets::delete(&node, &info.alias).await.unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_living_inlet_is_adopted_with_its_way() {
    run(async {
        let world = World::new(1);
        let (node, supervisor) = world.control(false).await;
        world.tables(0, |tables| tables.peer = Some(Peer::Echo));
        let info = inlets::create(&node, to(&world, PLAIN)).await.unwrap();
        outlets::create(&node, target("127.0.0.1:5432")).await.unwrap();
        let (link, before) = (only_link(&world, 0), way(&world, 0));
        drop((node, supervisor));
        world.tables(0, |tables| {
            // What nobody asked for.
            let stranger = crate::testing::Inlet {
                guard: None,
                cookie: Vec::new(),
                socket: crate::resolve::bind_listener(world.loopback).unwrap().0,
                way: None,
                wait_ms: 0,
            };
            tables.inlets.insert(99, stranger);
            tables.addresses.insert(b"other".to_vec(), (Target::Outlet, 0, Vec::new()));
        });

        let (node, _supervisor) = world.control(true).await;
        until_shown(&node, "db", |info| info.status == WayStatus::Up).await;
        assert_eq!((only_link(&world, 0), way(&world, 0)), (link, before));
        world.tables(0, |tables| {
            assert_eq!(tables.inlets.keys().copied().collect::<Vec<_>>(), [64]);
            assert!(!tables.addresses.contains_key(&b"other"[..]) && tables.addresses.contains_key(&b"outlet"[..]));
        });
        let adopted = inlets::info(&node, "db").await.unwrap();
        assert_eq!((adopted.from, adopted.repaired, adopted.error), (info.from, 0, None));
        inlets::delete(&node, "db").await.unwrap();
        until(|| world.tables(0, |tables| tables.links.is_empty().then_some(()))).await;
    });
}

#[test]
fn a_socket_of_the_service_manager_is_taken_by_the_inlet_of_its_name() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let (socket, local) = crate::resolve::bind_listener(world.loopback).unwrap();
        node.activated.put("db", socket.try_clone().unwrap());
        let info = inlets::create(&node, CreateTcpInlet { wait: false, ..to(&world, PLAIN) }).await.unwrap();
        assert_eq!(info.from, local.to_string());
        inlets::delete(&node, "db").await.unwrap();
        // It listens on: it is not ours.
        assert_eq!(rustix::net::sockopt::socket_acceptconn(socket.as_fd()), Ok(true));
    });
}

#[test]
fn an_outlet_has_the_addresses_that_its_name_stands_for() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let first = outlets::create(&node, target("localhost:5432")).await.unwrap();
        assert_eq!((first.address.as_str(), first.error), ("outlet", None));
        assert!(first.targets.iter().all(|target| target.ends_with(":5432")) && !first.targets.is_empty());
        let path = "/run/postgresql/.s.PGSQL.5432";
        let second = CreateTcpOutlet { allow_plain: true, ..target(&format!("unix:{path}")) };
        let second = outlets::create(&node, second).await.unwrap();
        assert_eq!((second.address.len(), second.targets), (32, vec![format!("unix:{path}")]));
        world.tables(0, |tables| {
            let (targets, plain) = &tables.outlets[&b"outlet"[..]];
            assert_eq!((targets.len(), *plain), (first.targets.len(), false));
            let unix = PortalTarget::Unix(path.as_bytes().into());
            assert_eq!(tables.outlets[second.address.as_bytes()], (vec![unix], true));
            let (kind, reachable, cookie) = &tables.addresses[&b"outlet"[..]];
            assert_eq!((*kind, *reachable), (Target::Outlet, u64::MAX));
            assert_eq!(node.cookies.open(cookie), Some(Cookie::Outlet { number: 1 }));
        });

        // One whose name stands for nothing waits for it.
        let nowhere = CreateTcpOutlet { address: Some("later".into()), ..target("nowhere.invalid:80") };
        let nowhere = outlets::create(&node, nowhere).await.unwrap();
        assert!(nowhere.targets.is_empty() && nowhere.error.unwrap().contains("does not resolve"));
        outlets::on_failed(&node, b"outlet", 111);
        assert!(outlets::info(&node, "outlet").unwrap().error.unwrap().contains("refused"));

        for (request, exit) in [
            (target("5432:x"), 64),
            (target("127.0.0.1:0"), 64),
            (target("unix:s"), 64),
            (CreateTcpOutlet { tls: true, ..target("unix:/s") }, 64),
            (CreateTcpOutlet { address: Some("a/b".into()), ..target("127.0.0.1:1") }, 64),
            (CreateTcpOutlet { address: Some("echo".into()), ..target("127.0.0.1:1") }, 73),
            (CreateTcpOutlet { address: Some("outlet".into()), ..target("127.0.0.1:1") }, 73),
        ] {
            assert_eq!(outlets::create(&node, request.clone()).await.unwrap_err().exit(), exit, "{request:?}");
        }
        assert!(matches!(
            node.start_service(crate::api::Service::Echo, "later").await,
            Err(Error::AddressTaken { .. })
        ));
        world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
        assert!(outlets::create(&node, target("127.0.0.1:1")).await.is_err());
        assert_eq!(node.desired().outlets.len(), 3);
        for address in ["outlet", "later", &second.address] {
            outlets::delete(&node, address).await.unwrap();
        }
        assert!(matches!(outlets::delete(&node, "outlet").await, Err(Error::NoSuchThing { .. })));
        world.tables(0, |tables| assert!(tables.addresses.values().all(|(kind, ..)| *kind != Target::Outlet)));
        assert!(outlets::infos(&node).is_empty());
    });
}
