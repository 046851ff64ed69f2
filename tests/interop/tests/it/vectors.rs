//! The worked examples of the specification, sent as they stand there; the answers are compared to the byte.

use ockam_interop::{Peer, RawPeer, assert_body};

both!(
    a8_echo,
    a8_echo_without_tracing,
    a6_heartbeats,
    b2_hop,
    n2_uppercase,
    n2_echo_of_raw_bytes,
    i5_a_request_to_a_service_that_does_not_run,
);

/// `echo` with the String "hello", and its answer (A.8).
const A8_REQUEST: &str = "0000003884818200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f627b7d";
const A8_REPLY: &str =
    "8481820058206161616161616161616161616161616161616161616161616161616161616161818200446563686f460568656c6c6f627b7d";

fn write(link: &mut RawPeer, vector: &str) {
    link.write(&hex::decode(vector).expect("a vector is hexadecimal"));
}

fn send(link: &mut RawPeer, vector: &str) {
    link.send(&hex::decode(vector).expect("a vector is hexadecimal"));
}

fn a8_echo(peer: &Peer) {
    let mut link = peer.link();
    write(&mut link, A8_REQUEST);
    assert_body(peer.kind(), &link.receive(), A8_REPLY);
}

fn a8_echo_without_tracing(peer: &Peer) {
    let mut link = peer.link();
    write(
        &mut link,
        "0000003583818200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f",
    );
    assert_body(peer.kind(), &link.receive(), A8_REPLY);
}

/// Both forms (A.6), between two requests.
fn a6_heartbeats(peer: &Peer) {
    let mut link = peer.link();
    write(&mut link, "0000000483808040");
    write(&mut link, "0000000784808040627b7d");
    write(&mut link, A8_REQUEST);
    assert_body(peer.kind(), &link.receive(), A8_REPLY);
}

/// B.2. The answer of `echo` goes back through `hop`, so its return route is the way in.
fn b2_hop(peer: &Peer) {
    if let Peer::Ours(node) = peer {
        node.start_hop();
    }
    let mut link = peer.link();
    send(
        &mut link,
        "8482820043686f708200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f627b7d",
    );
    assert_body(
        peer.kind(),
        &link.receive(),
        "848182005820616161616161616161616161616161616161616161616161616161616161616182820043686f708200446563686f460568656c6c6f627b7d",
    );
}

/// What a real `message send hello` sends to `uppercase` (N.2), and what answers it.
fn n2_uppercase(peer: &Peer) {
    let mut link = peer.link();
    send(
        &mut link,
        "848182004975707065726361736581820058203739393639416637616338663364396336613165313233373765666534643162460568656c6c6f627b7d",
    );
    assert_body(
        peer.kind(),
        &link.receive(),
        "848182005820373939363941663761633866336439633661316531323337376566653464316281820049757070657263617365460548454c4c4f627b7d",
    );
}

/// What a real `message send --hex 000102` sends to `echo` (N.2), and what answers it.
fn n2_echo_of_raw_bytes(peer: &Peer) {
    let mut link = peer.link();
    send(
        &mut link,
        "84818200446563686f8182005820613232303962643937346437393137343966363261396261663864383161653543000102627b7d",
    );
    assert_body(
        peer.kind(),
        &link.receive(),
        "8481820058206132323039626439373464373931373439663632613962616638643831616535818200446563686f43000102627b7d",
    );
}

/// I.5: `GET /node` of the control API. Neither node here has it at this address; a real node started by its command
/// does, ours never (decision 2 of the command line).
fn i5_a_request_to_a_service_that_does_not_run(peer: &Peer) {
    let mut link = peer.link();
    write(
        &mut link,
        "0000005684818200555f696e7465726e616c2e6e6f64656d616e61676572818200582061616161616161616161616161616161616161616161616161616161616161615312a4011a0102030402652f6e6f6465030004f4627b7d",
    );
    link.assert_serving_and_silent();
}
