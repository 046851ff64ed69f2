//! The API of control: for its owner over its socket, for nobody else and nowhere else.

use ockam_tests::{Home, Peer, finish, frame, is_root, skip};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// What curl got: the status and the body.
fn curl(home: &Home, node: &str, arguments: &[&str], path: &str) -> (u16, Value) {
    let socket = home.node_dir(node).join("control.sock");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--unix-socket"]).arg(socket);
    let printed = finish(command.args(arguments).arg(format!("http://node{path}")), b"").ok();
    let (body, status) = printed.rsplit_once('\n').expect("a body and a status");
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::String(body.into())))
}

fn post(home: &Home, node: &str, path: &str, body: &str) -> (u16, Value) {
    let arguments = ["--request", "POST", "--header", "content-type: application/json", "--data-binary", body];
    curl(home, node, &arguments, path)
}

#[test]
fn curl_can_do_what_the_command_does() {
    let home = Home::new();
    let (one, two) = (home.node("n1", &[]), home.node("n2", &[]));
    let get = |path| {
        let (status, body) = curl(&home, "n1", &[], path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    let node = get("/node");
    assert_eq!((node["name"].as_str(), node["pid"].as_u64()), (Some("n1"), Some(one.control.0.into())));
    assert_eq!(node["engine"]["pid"].as_u64(), Some(one.engine.0.into()));
    assert_eq!(get("/tcp-listeners")[0]["address"], one.address.to_string());
    assert_eq!(get("/tcp-connections"), json!([]));
    let names = |body: Value| body.as_array().unwrap().iter().map(|it| it["addr"].clone()).collect::<Vec<_>>();
    assert_eq!(names(get("/services")), ["echo", "uppercase"]);
    assert!(get("/workers").as_array().is_some_and(|workers| workers.len() >= 2));
    assert!(get("/flow-controls").as_array().is_some_and(|controls| !controls.is_empty()));
    assert_eq!(get("/engine")["pid"].as_u64(), Some(one.engine.0.into()));
    assert!(get("/engine/stats")["counters"]["ticks"].is_u64());

    let message = json!({"route": two.service("uppercase"), "message": {"text": "hello"}, "timeout_ms": 10_000});
    let (status, reply) = post(&home, "n1", "/messages", &message.to_string());
    assert_eq!((status, reply), (200, json!({"text": "HELLO", "hex": "0548454c4c4f"})));
    let (status, made) = post(&home, "n1", "/tcp-listeners", r#"{"address": "127.0.0.1:0"}"#);
    assert!((200..300).contains(&status), "{status} {made}");
    let address = made["address"].as_str().expect("an address").to_owned();
    assert_eq!(get(&format!("/tcp-listeners/{address}"))["address"], made["address"]);
    let (status, _) = curl(&home, "n1", &["--request", "DELETE"], &format!("/tcp-listeners/{address}"));
    assert!((200..300).contains(&status));
    let (status, error) = curl(&home, "n1", &[], &format!("/tcp-listeners/{address}"));
    assert_eq!((status, error["error"]["exit"].as_u64()), (404, Some(68)), "{error}");

    let (status, stopped) = post(&home, "n1", "/node/stop", "");
    assert_eq!((status, &stopped["name"]), (200, &json!("n1")), "{stopped}");
    one.control.wait();
    one.engine.wait();
    assert_eq!(home.status("n1"), "stopped");
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let home = Home::new();
    home.node("n1", &[]);
    let state = || ["/tcp-listeners", "/services", "/flow-controls"].map(|path| curl(&home, "n1", &[], path));
    let before = state();
    for (path, body) in [
        ("/tcp-listeners", ""),
        ("/tcp-listeners", "{"),
        ("/tcp-listeners", "[]"),
        ("/tcp-listeners", "null"),
        ("/tcp-listeners", "{}"),
        ("/tcp-listeners", r#"{"address": 7}"#),
        ("/tcp-listeners", r#"{"address": ""}"#),
        ("/tcp-listeners", r#"{"address": "127.0.0.1:99999"}"#),
        ("/tcp-listeners", r#"{"address": "127.0.0.1:0", "more": 1}"#),
        ("/tcp-listeners", "\u{1}\u{7f}"),
        ("/services", r#"{"service": "shell"}"#),
        ("/services", r#"{"service": "hop", "address": ""}"#),
        ("/services", r#"{"service": "hop", "address": "a/b"}"#),
        ("/services", r#"{"service": "hop", "address": "a\nb"}"#),
        ("/tcp-connections", r#"{"to": "127.0.0.1:0"}"#),
        ("/tcp-connections", r#"{"to": "nowhere"}"#),
        ("/flow-controls/consumers", r#"{"flow_control_id": "12", "address": "echo"}"#),
        ("/messages", r#"{"route": "/service/echo", "message": {"text": "x"}, "timeout_ms": 0}"#),
        ("/messages", r#"{"route": "/service/echo", "message": {"hex": "xyz"}, "timeout_ms": 10}"#),
        ("/messages", r#"{"route": "/service/echo", "message": {"text": "x", "hex": "00"}, "timeout_ms": 10}"#),
        ("/messages", r#"{"route": "/node/n1/service/echo", "message": {"text": "x"}, "timeout_ms": 10}"#),
        ("/messages", r#"{"route": "nonsense", "message": {"text": "x"}, "timeout_ms": 10}"#),
    ] {
        let (status, error) = post(&home, "n1", path, body);
        assert!((400..500).contains(&status), "{path} {body:?}: {status} {error}");
        let said = |field: &str| error["error"][field].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("code") && said("message") && said("hint"), "{path} {body:?}: {error}");
        assert!(error["error"]["exit"].as_u64().is_some_and(|exit| exit >= 64), "{path} {body:?}: {error}");
    }
    for (arguments, path, expected) in [
        (&[][..], "/nothing", 404),
        (&[], "/../../etc/passwd", 404),
        (&["--path-as-is"], "/../../etc/passwd", 404),
        (&["--request", "PUT"], "/node", 405),
        (&["--request", "DELETE"], "/node", 405),
        (&[], "/tcp-connections/%00", 404),
        (&[], "/tcp-connections/%ff%fe", 400),
    ] {
        let (status, error) = curl(&home, "n1", arguments, path);
        assert_eq!(status, expected, "{arguments:?} {path}: {error}");
        assert!(error["error"]["code"].is_string(), "{arguments:?} {path}: {error}");
    }
    // Deep, and too long: refused before it is kept.
    let (status, _) = post(&home, "n1", "/services", &"[".repeat(100_000));
    assert_eq!(status, 400);
    let long = home.path().join("long.json");
    fs::write(&long, vec![b' '; 1024 * 1024 + 1]).unwrap();
    let (status, _) = post(&home, "n1", "/services", &format!("@{}", long.display()));
    assert_eq!(status, 413);
    assert_eq!(state(), before);
}

#[test]
fn slow_and_silent_callers_hold_up_nobody() {
    let home = Home::new();
    let one = home.node("n1", &[]);
    let before = one.control.descriptors();
    let socket = home.node_dir("n1").join("control.sock");
    let callers: Vec<UnixStream> = (0..200)
        .map(|number| {
            let mut caller = UnixStream::connect(&socket).unwrap();
            let part: &[u8] = match number % 4 {
                0 => b"",
                1 => b"POST /services HT",
                2 => b"POST /services HTTP/1.1\r\nhost: node\r\ncontent-length: 900000\r\n\r\n{",
                _ => b"\xff\xfe\x00nonsense\r\n\r\n",
            };
            // Nonsense is hung up on, perhaps before it is all said.
            let _ = caller.write_all(part);
            caller
        })
        .collect();
    assert_eq!(home.send("hello", "/service/uppercase", &["--from", "n1"]), "HELLO");
    // Each is hung up on by itself, whatever it does not do.
    for mut caller in callers {
        caller.set_read_timeout(Some(ockam_tests::PATIENCE)).unwrap();
        let mut answer = Vec::new();
        match caller.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("a caller that says nothing is kept: {error}"),
        }
    }
    ockam_tests::wait_until(|| one.control.descriptors() <= before, || "descriptors are not given back".into());
}

#[test]
fn other_users_are_refused() {
    if !is_root() {
        return skip("to be another user needs root");
    }
    let home = Home::new();
    home.node("n1", &[]);
    let sockets = ["control.sock", "engine.sock"].map(|name| home.node_dir("n1").join(name));
    for socket in &sockets {
        assert_eq!(fs::metadata(socket).unwrap().mode() & 0o7777, 0o600, "{}", socket.display());
    }
    let as_nobody = |arguments: &[&str]| {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        finish(&mut home.around("setpriv", &[&user, arguments].concat()), b"")
    };
    let control = sockets[0].to_str().unwrap();
    let call = ["curl", "--silent", "--show-error", "--unix-socket", control, "http://node/node"];
    let refused = as_nobody(&call);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    as_nobody(&["ockam", "node", "list"]).fails(77);
    as_nobody(&["ockam", "node", "create", "n2"]).fails(77);

    // The socket itself refuses them, too: should somebody open the directories, it still serves its owner alone.
    let temporary = home.path().parent().unwrap().to_owned();
    for directory in [temporary, home.path().to_owned(), home.path().join("nodes"), home.node_dir("n1")] {
        fs::set_permissions(directory, Permissions::from_mode(0o711)).unwrap();
    }
    for socket in &sockets {
        fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
    }
    let refused = as_nobody(&call);
    assert!(!refused.stdout.contains("\"pid\""), "{refused:?}");
    assert!(refused.code != Some(0) || refused.stdout.contains("E_OTHER_USER"), "{refused:?}");
    // The engine hangs up on them, and still serves its control.
    assert!(std::thread::scope(|scope| scope
        .spawn(|| {
            // The user of this thread alone.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may become anybody");
            is_hung_up_on(&sockets[1])
        })
        .join()
        .unwrap()));
    assert_eq!(home.send("hello", "/service/uppercase", &["--from", "n1"]), "HELLO");
    home.ok(&["service", "start", "hop", "--at", "n1"]);
}

/// Whether what listens at this socket ends the connection without a word.
fn is_hung_up_on(socket: &Path) -> bool {
    let connection = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    set_socket_timeout(&connection, Timeout::Recv, Some(ockam_tests::PATIENCE)).unwrap();
    connect(&connection, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    match rustix::io::read(&connection, &mut [0; 4096]) {
        Ok(count) => count == 0,
        Err(errno) => errno == rustix::io::Errno::CONNRESET,
    }
}

#[test]
fn the_engine_has_one_control() {
    let home = Home::new();
    let one = home.node("n1", &[]);
    assert!(is_hung_up_on(&home.node_dir("n1").join("engine.sock")), "a second control is hung up on");
    home.ok(&["service", "start", "hop", "--at", "n1"]);
    assert_eq!(home.show("n1"), one);
}

#[test]
fn the_api_is_not_on_the_data_listener() {
    let home = Home::new();
    let one = home.node("n1", &[]);
    for request in ["GET /node HTTP/1.1\r\nhost: node\r\n\r\n", "POST /node/stop HTTP/1.1\r\ncontent-length: 0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(one.address).unwrap();
        stream.set_read_timeout(Some(ockam_tests::PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // What was not read when it was closed makes a reset of it.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer == [1], "{:?}", String::from_utf8_lossy(&answer));
    }
    // Nor has it an address that a message could reach (`wire.md` I.3).
    let mut peer = Peer::connect(one.address);
    for name in ["_internal.nodemanager", "nodemanager", "control", "api", "rpc_proxy"] {
        peer.send(&frame(&[name], &["me"], b"\x00"));
    }
    peer.echoes(b"nothing else answered");
    assert_eq!(home.show("n1"), one);
}
