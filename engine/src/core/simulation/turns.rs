//! Links of large frames take turns with the kernel.

use super::*;
use crate::core::link::{Partial, Receiving};

/// What came on such a link is offered to the kernel before the link receives again, and no more links do so in one pass than
/// a cache has room for.
#[test]
fn what_came_is_sent_before_more_is_received() {
    const LINKS: usize = 3;
    let one_core = |seed| Some(World::new(seed, false)).filter(|world| world.cores.len() == 1);
    let mut world = (0..).find_map(one_core).expect("some worlds have one core");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.set("echo", Target::Echo);
    (0..LINKS).for_each(|_| world.connect(0, &listener, 0));
    // Until nothing happens any more.
    (0..200).for_each(|_| world.tick());

    let (onward, back) = ([AddressRef::local(b"echo")], [AddressRef::local(b"s")]);
    let (onward, return_route) = (RouteParts::new(&onward), RouteParts::new(&back));
    let payload = [7; 64 * 1024];
    let question = Outgoing { onward, return_route, payload_len: payload.len(), tracing: None };
    let frames = question.to_frame(&payload).repeat(2);
    let core = &mut world.cores[0];
    let links: Vec<LinkId> = core.links.iter().map(|link| link.id).collect();
    assert_eq!(links.len(), LINKS);
    for link in &links {
        let mut slot = core.pool.take().unwrap();
        slot.bytes_mut(0..frames.len()).copy_from_slice(&frames);
        // As if the driver had been given the slot, and had filled it.
        core.links[link.index()].ingest.partial = Partial::Lent { kept: 0..0, large: None };
        core.held_partials += 1;
        core.driver.sockets.get_mut(&link.index()).unwrap().1.receiving = false;
        core.on_filled(link.index(), slot, frames.len());
    }
    let receiving = |world: &World| {
        let receives = |link: &&LinkId| world.cores[0].links[link.index()].ingest.receiving != Receiving::Off;
        links.iter().filter(receives).count()
    };
    assert_eq!(receiving(&world), 0, "what came was not offered yet");
    for expected in [0, 2, LINKS] {
        world.tick();
        assert_eq!(receiving(&world), expected);
    }
    (0..LINKS).for_each(|number| world.reset(number));
    world.ends_well(0);
}
