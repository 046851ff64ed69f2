//! M12: what each further node on a route costs, against plain relays in a row.

use super::{Contender, column, interleave};
use crate::load::{Dials, Load, Path, Sink};
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::{Summary, slope};
use crate::system::{Failed, Owner, Setup, System};
use std::net::SocketAddr;

const PAYLOAD: usize = 64 * 1024;
/// Nodes in a row.
const HOPS: [usize; 4] = [1, 2, 4, 8];
/// Cost of a further one over that of a further plain relay.
const COST: f64 = 1.3;

/// The first `count` of a row of systems, as one.
fn row_of(systems: &[System], count: usize, name: &str) -> System {
    System {
        name: name.to_owned(),
        address: systems[0].address,
        pids: systems[..count].iter().flat_map(|system| system.pids.clone()).collect(),
        facts: Vec::new(),
        owner: Owner::Others,
    }
}

/// Measures.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "hops",
        "Frames of 64 KiB through 1 to 8 nodes in a row, every byte compared at the sink; processor time of all of them. \
         The route names each next node; a node cannot tell a sealed payload from any other, so these are not. The floor \
         is as many relays of bytes through 256 KiB buffers, each told where the next one is. A further hop costs the \
         slope of the line through the counts.",
    );
    let most = HOPS[HOPS.len() - 1];
    let sink = Sink::new()?;
    let nodes: Vec<System> = (0..most).map(|_| setup.node("uring", 1)).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let ours = HOPS.map(|count| row_of(&nodes, count, &nodes[0].name));
    let mut floors = Vec::new();
    for count in HOPS {
        // Each is told where the next one is, so they start from the end.
        let mut row = Vec::new();
        let mut next = sink.address;
        for _ in 0..count {
            row.insert(0, setup.floor("floor: bytes", &["bytes", "--to", &next.to_string()])?);
            next = row[0].address;
        }
        floors.push((row_of(&row, count, "floor: bytes"), row));
    }
    let mut contenders = Vec::new();
    for ((count, ours), (floor, _)) in HOPS.into_iter().zip(&ours).zip(&floors) {
        for (system, via, dials) in
            [(ours, &addresses[1..count], Dials::OnTheFirstFrame), (floor, &[][..], Dials::AtOnce)]
        {
            let sink = &sink;
            let load =
                move |system: &System| Load::stream(&Path { relay: system.address, via, sink, dials }, PAYLOAD, 1);
            contenders.push(Contender { system, load: Box::new(load) });
        }
    }
    let measured = interleave(setup, "hops", &contenders)?;
    let mut costs = [Vec::new(), Vec::new()];
    for (place, (contender, measured)) in contenders.iter().zip(&measured).enumerate() {
        let (count, row) = (HOPS[place / 2], place % 2);
        let cost = column(measured, |it| 1e6 / it.per_cpu_s);
        costs[row].push(cost.clone());
        section.rows.push(Row {
            load: format!("64 KiB, {count} hop{}", if count == 1 { "" } else { "s" }),
            system: contender.system.name.clone(),
            metrics: vec![
                ("CPU us per frame", cost),
                ("CPU us per frame and hop", column(measured, |it| 1e6 / it.per_cpu_s / count as f64)),
                ("Gbit/s", column(measured, |it| it.per_s * PAYLOAD as f64 * 8.0 / 1e9)),
            ],
        });
    }
    let counts = HOPS.map(|count| count as f64);
    let further = costs.map(|costs| {
        let of = |repetition: usize| costs.iter().map(|cost| cost.samples[repetition]).collect::<Vec<f64>>();
        Summary::of((0..setup.repetitions).map(|repetition| slope(&counts, &of(repetition))).collect())
    });
    for (name, cost) in [&ours[0].name, "floor: bytes"].into_iter().zip(&further) {
        section.rows.push(Row {
            load: "64 KiB, each further hop".into(),
            system: name.to_owned(),
            metrics: vec![("CPU us per frame and hop", cost.clone())],
        });
    }
    section.verdicts.push(Verdict::new(
        "cost of a further hop over a further plain relay, 64 KiB",
        Summary::ratio(&further[0], &further[1]),
        Limit::AtMost(COST),
    ));
    Ok(section)
}
