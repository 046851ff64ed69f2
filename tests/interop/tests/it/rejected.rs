//! What both kinds of node close a connection for, without a word, and without harm to other connections (A.2, A.6,
//! N.1).

use ockam_interop::Peer;

both!(frames_without_a_body, frames_over_the_limit, bodies_that_are_no_message, a_frame_cut_short);

fn frames_without_a_body(peer: &Peer) {
    let mut link = peer.link();
    link.assert_serving_and_silent();
    link.write(&[0; 4]);
    link.assert_closed();
    peer.link().assert_serving_and_silent();
}

/// The length alone closes the connection: not a byte of the body is sent here.
fn frames_over_the_limit(peer: &Peer) {
    for length in [ockam_wire::FRAME_MAX as u32 + 1, 0x0100_0100, 0x8000_0000, u32::MAX] {
        let mut link = peer.link();
        link.assert_serving_and_silent();
        link.write(&length.to_be_bytes());
        link.assert_closed();
    }
    peer.link().assert_serving_and_silent();
}

fn bodies_that_are_no_message(peer: &Peer) {
    const TO_ECHO: &str = "818200446563686f";
    const FROM_A: &str = "8182004161";
    for (what, body) in [
        ("an integer", "00".to_owned()),
        ("a break", "ff".into()),
        ("a text", "656c6f726d".into()),
        ("a map", "a0".into()),
        ("a tag", "c1838080 40".into()),
        ("a reserved head", "9c".into()),
        ("no element", "80".into()),
        ("one element", format!("81{TO_ECHO}")),
        ("two elements", format!("82{TO_ECHO}{FROM_A}")),
        ("only the head", "83".into()),
        ("an end inside the onward route", format!("83{}", &TO_ECHO[..8])),
        ("an end inside the payload", format!("83{TO_ECHO}{FROM_A}4568656c6c")),
        ("an end before the tracing text", format!("84{TO_ECHO}{FROM_A}40")),
        ("an end inside the tracing text", format!("84{TO_ECHO}{FROM_A}40 627b")),
        ("an end of an indefinite message", format!("9f{TO_ECHO}{FROM_A}40")),
        ("a payload of 16 EiB", format!("83{TO_ECHO}{FROM_A}5bffffffffffffffff")),
        ("a payload of 4 GiB", format!("83{TO_ECHO}{FROM_A}5affffffff61")),
        ("a payload of indefinite length", format!("83{TO_ECHO}{FROM_A}5f4161ff")),
        ("a payload of text", format!("83{TO_ECHO}{FROM_A}6161")),
        ("a payload of numbers", format!("83{TO_ECHO}{FROM_A}8101")),
        ("no payload but null", format!("83{TO_ECHO}{FROM_A}f6")),
        ("tracing of bytes", format!("84{TO_ECHO}{FROM_A}40 427b7d")),
        ("tracing of a number", format!("84{TO_ECHO}{FROM_A}40 07")),
        ("tracing that is not UTF-8", format!("84{TO_ECHO}{FROM_A}40 62c328")),
        ("tracing of indefinite length", format!("84{TO_ECHO}{FROM_A}40 7f6161ff")),
        ("an onward route of bytes", format!("83 446563686f{FROM_A}40")),
        ("no onward route but null", format!("83f6{FROM_A}40")),
        ("no return route but null", format!("83{TO_ECHO}f640")),
        ("a route of 16 EiB", format!("83 9bffffffffffffffff{FROM_A}40")),
        ("an address of bytes", format!("8381446563686f{FROM_A}40")),
        ("an address of one element", format!("838181 00{FROM_A}40")),
        ("an address of no element", format!("838180{FROM_A}40")),
        ("a name of text", format!("83818200646563686f{FROM_A}40")),
        ("a name of indefinite length", format!("838182005f446563686fff{FROM_A}40")),
        ("a transport type of 256", format!("8381821901004161{FROM_A}40")),
        ("a transport type of -1", format!("8381822041 61{FROM_A}40")),
        ("a transport type of text", format!("838182616141 61{FROM_A}40")),
    ] {
        let mut link = peer.link();
        link.send(&hex::decode(body.replace(' ', "")).expect("hexadecimal"));
        // Shown when the next line fails.
        eprintln!("{what}");
        link.assert_closed();
    }
    peer.link().assert_serving_and_silent();
}

fn a_frame_cut_short(peer: &Peer) {
    for bytes in [&b"\0"[..], b"\0\0\0", b"\0\0\0\x09\x83\x80"] {
        let mut link = peer.link();
        link.write(bytes);
        link.finish();
        link.assert_closed();
    }
    peer.link().assert_serving_and_silent();
}
