//! Portals between nodes of every two kinds: what goes in at one end comes out at the other (`wire.md` F).

use ockam_interop::{Client, Ended, Kind, Portal};
use ockam_tests::ClosedPort;
use std::io::{ErrorKind, Read, Write};
use std::thread;

portals!(every_size, many_connections, everything_before_an_end_arrives, who_leaves_in_the_middle);
portals!(ours: a_target_that_is_not_there);

/// What the target must report of connections with these numbers.
fn whole(numbers: impl IntoIterator<Item = u64>) -> Vec<Ended> {
    numbers.into_iter().map(|number| Ended { number, whole: true }).collect()
}

/// One connection after the other, with little and much in each direction, around the edges of what real nodes put into one
/// message (F.3), and at last much in both at once.
fn every_size(portal: &Portal) {
    for (up, down) in [
        (0, 0),
        (1, 0),
        (0, 1),
        (23, 24),
        (255, 256),
        (4096, 1460),
        (48 << 10, 65536),
        (131_071, 131_072),
        (131_073, 1),
        (1 << 20, 17),
        (3, 1 << 20),
        (10_000_000, 0),
        (0, 10_000_000),
        (10_000_000, 10_000_000),
    ] {
        let client = Client::talk(portal.inlet, up, down);
        let number = client.number();
        // Its end is the end of all.
        drop(client);
        assert_eq!(vec![portal.target.ended()], whole([number]), "{up} bytes up, {down} bytes down");
    }
}

/// More than a hundred at once, none of which gets what is another's.
fn many_connections(portal: &Portal) {
    let clients = (0..128).map(|i| {
        let inlet = portal.inlet;
        let talk = move || Client::talk(inlet, i * 701, (127 - i) * 997);
        thread::Builder::new().spawn(talk).expect("a thread")
    });
    let clients: Vec<_> =
        clients.collect::<Vec<_>>().into_iter().map(|client| client.join().expect("it talks")).collect();
    // All are open at this moment.
    let mut numbers: Vec<_> = clients.iter().map(Client::number).collect();
    drop(clients);
    numbers.sort_unstable();
    let mut ended: Vec<_> = numbers.iter().map(|_| portal.target.ended()).collect();
    ended.sort_unstable();
    assert_eq!(ended, whole(numbers));
}

/// F.4: an end comes behind what was sent before it, whoever ends the connection.
fn everything_before_an_end_arrives(portal: &Portal) {
    for size in [0, 1, 5000, 131_072, 1 << 20, 10_000_000] {
        let number = Client::send_and_leave(portal.inlet, size);
        assert_eq!(vec![portal.target.ended()], whole([number]), "{size} bytes from the client");
        let number = Client::receive_to_the_end(portal.inlet, size);
        assert_eq!(vec![portal.target.ended()], whole([number]), "{size} bytes from the target");
    }
    // A client that has nothing to say.
    drop(Client::connect(portal.inlet));
    assert_eq!(vec![portal.target.ended()], whole([0]));
}

/// A client that leaves without reading what is on its way to it: the target hears of it, and others do not.
fn who_leaves_in_the_middle(portal: &Portal) {
    let other = Client::talk(portal.inlet, 10, 10);
    for _ in 0..5 {
        let leaving = Client::ask(portal.inlet, 0, 10_000_000);
        let number = leaving.number();
        drop(leaving);
        assert_eq!(portal.target.ended().number, number);
    }
    let number = other.number();
    drop(other);
    assert_eq!(vec![portal.target.ended()], whole([number]));
}

/// A real outlet keeps silent when its target is not there (F.2), so a client of ours is let go when it has waited long
/// enough. Ours answers, and ends the connection at once, whoever asked.
fn a_target_that_is_not_there(portal: &Portal) {
    let nobody = ClosedPort::new();
    portal.far.outlet("nobody", nobody.address());
    let inlet = portal.near.inlet("nobody", &format!("{}/service/nobody", portal.way));
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(inlet)).collect();
    if portal.far.kind() == Kind::Ours {
        // Others are served meanwhile.
        drop(Client::talk(portal.inlet, 1000, 1000));
        assert!(portal.target.ended().whole);
    }
    for client in &mut clients {
        // It may be over already.
        let _ = client.write_all(b"anybody?");
        match client.read(&mut [0]) {
            Ok(read) => assert_eq!(read, 0, "a byte came from nowhere"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "it ends"),
        }
    }
}
