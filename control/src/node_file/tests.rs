use super::*;
use crate::cli::values::PortalPlace;

fn nothing(_: &str) -> Result<Option<String>, String> {
    Ok(None)
}

fn node(text: &str) -> Result<Plan, Fault> {
    read(text, Kind::Node, &[], &nothing)
}

fn recipe(text: &str) -> Result<Plan, Fault> {
    read(text, Kind::Recipe, &[], &nothing)
}

fn names(plan: &Plan) -> Vec<String> {
    let name = |step: &Step<NodeCreate>| match &step.arguments.name {
        Some(NodeSource::Name(name)) => name.to_string(),
        other => format!("{other:?}"),
    };
    plan.nodes.iter().map(name).collect()
}

#[test]
fn a_whole_file_becomes_arguments() {
    let text = "
version: 1
variables: { TARGET: 127.0.0.1:5432, WHOM: I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef }
name: sidecar
tcp-listener-address: 127.0.0.1:4000
identity: keeper
threads: 2
pin: true
foreground: false
allow-transit:
  - 10.0.0.0/8=10.1.0.0/16:4000
vaults:
  safe: { path: /media/safe.vault }
identities:
  - keeper
  - other: { vault: safe }
relays:
  far:
    at: /dnsaddr/relay.example/tcp/4000/secure/api
    no-connection-wait: true
tcp-outlets:
  db: { to: $TARGET, tls: false }
  docker: { to: unix:/run/docker.sock, allow-plain: true }
tcp-inlet:
  - from: ${PORT:-8080}
    to: /node/n3/secure/api/service/web
    authorized: [$WHOM, $WHOM]
    connection-wait: 0
  - alias: second
    to: outlet
    via: far@n2
";
    let plan = node(text).unwrap();
    assert_eq!(names(&plan), ["sidecar"]);
    let of = &plan.nodes[0].arguments;
    assert_eq!(of.tcp_listener_address.as_ref().map(ToString::to_string).as_deref(), Some("127.0.0.1:4000"));
    assert_eq!((of.identity.as_deref(), of.threads, of.pin, of.foreground), (Some("keeper"), Some(2), true, false));
    assert_eq!(of.allow_transit.len(), 1);
    assert_eq!(plan.vaults[0].arguments.name.as_deref(), Some("safe"));
    let identities: Vec<_> =
        plan.identities.iter().map(|it| (it.arguments.name.as_deref(), it.arguments.vault.as_deref())).collect();
    assert_eq!(identities, [(Some("keeper"), None), (Some("other"), Some("safe"))]);
    let relay = &plan.relays[0].arguments;
    assert_eq!((relay.name.as_str(), relay.no_connection_wait), ("far", true));
    let mine = Some(NodeRef("sidecar".parse().unwrap()));
    assert_eq!(relay.of.to, mine);
    let [db, docker] = plan.outlets.as_slice() else { panic!("{plan:?}") };
    assert_eq!((db.arguments.from.as_deref(), db.arguments.to.to_string().as_str()), (Some("db"), "127.0.0.1:5432"));
    assert_eq!((docker.arguments.allow_plain, docker.arguments.tls), (true, false));
    assert_eq!(docker.arguments.to, PortalPlace::Unix("/run/docker.sock".into()));
    assert_eq!(docker.arguments.at.at, mine);
    let [web, second] = plan.inlets.as_slice() else { panic!("{plan:?}") };
    assert_eq!(web.arguments.from.as_ref().map(ToString::to_string).as_deref(), Some("127.0.0.1:8080"));
    assert_eq!((web.arguments.trust.authorized.len(), web.arguments.connection_wait.is_zero()), (2, true));
    assert_eq!(web.arguments.alias, None);
    assert_eq!((second.arguments.alias.as_deref(), second.arguments.via.is_some()), (Some("second"), true));
    assert_eq!(second.place, Place { line: 29, column: 5 });
}

#[test]
fn each_shape_is_read() {
    for text in [
        "tcp-outlet: { to: 80 }",
        "tcp-outlets: { outlet: { to: 80 } }",
        "tcp-outlets: [{ to: 80 }]",
        "tcp-outlets:\n- outlet: { to: 80 }",
        "tcp-outlets:\n- from: outlet\n  to: 80",
        "tcp-outlets: { to: '80', from: outlet, tls: false }",
    ] {
        let plan = node(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        assert_eq!(plan.outlets.len(), 1, "{text}");
        assert_eq!(plan.outlets[0].arguments.to.to_string(), "127.0.0.1:80", "{text}");
    }
    for text in [
        "nodes: [n1, n2]",
        "nodes: { n1: , n2: }",
        "nodes: { n1: {}, n2: { threads: 1 } }",
        "nodes:\n- n1\n- n2: { threads: 1 }",
        "nodes:\n- name: n1\n- name: n2\n  threads: 1",
    ] {
        let plan = recipe(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        assert_eq!(names(&plan), ["n1", "n2"], "{text}");
    }
    assert_eq!(names(&recipe("node: n1").unwrap()), ["n1"]);
    assert!(node("name: n1\nrelays:\n").unwrap().relays.is_empty());
    assert_eq!(names(&node("\u{feff}name: n1").unwrap()), ["n1"]);
    // Without a name the node gets one later, and what is of it is of it.
    let plan = node("tcp-outlet: { to: 80 }").unwrap();
    assert_eq!((plan.nodes.len(), &plan.outlets[0].arguments.at.at), (1, &None));
}

#[test]
fn tickets_projects_and_policies_are_read() {
    let text = "
ticket: /run/secrets/ticket
project: production
policies:
  db: { resource-type: tcp-outlet, allow: cluster=production }
tcp-outlet: { from: db, to: 5432, expression: admin }
tcp-inlet: { alias: web, to: /node/n3/secure/api/service/web, allow: '(= subject.role \"web\")' }
";
    let plan = node(text).unwrap();
    let of = &plan.nodes[0].arguments;
    let ticket = of.enrollment_ticket.as_ref().unwrap();
    assert_eq!((ticket.text.as_str(), ticket.is_typed), ("/run/secrets/ticket", false));
    assert_eq!(of.believed.project.as_deref(), Some("production"));
    let policy = &plan.policies[0].arguments;
    assert_eq!((policy.of.resource.as_deref(), policy.allow.as_str()), (Some("db"), "cluster=production"));
    assert_eq!(policy.of.resource_type, Some(crate::api::ResourceType::TcpOutlet));
    assert_eq!(plan.outlets[0].arguments.allow.as_deref(), Some("admin"));
    assert_eq!(plan.inlets[0].arguments.allow.as_deref(), Some("(= subject.role \"web\")"));
    for text in [
        "policies: [{ resource-type: echoer, allow: admin }]",
        "policy: { resource-type: echoer, expression: admin }",
        "policies:\n- { resource-type: echoer, allow: admin }",
    ] {
        let plan = node(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        assert_eq!(plan.policies[0].arguments.of.resource, None, "{text}");
    }

    // That of a recipe is for all its nodes that have none of their own.
    let plan =
        recipe("ticket: t1\nnodes: { n1: {}, n2: { ticket: t2 } }\npolicy: { echo: { allow: a, at: n2 } }").unwrap();
    let tickets: Vec<&str> =
        plan.nodes.iter().map(|step| step.arguments.enrollment_ticket.as_ref().unwrap().text.as_str()).collect();
    assert_eq!(tickets, ["t1", "t2"]);
    assert!(recipe("ticket: t1").is_err());
    assert!(recipe("nodes: [n1, n2]\npolicy: { echo: { allow: a } }").is_err());
}

#[test]
fn whose_a_thing_is_must_be_known() {
    let two = "nodes: [n1, n2]\ntcp-outlet: { to: 80, at: n2 }\nrelay: { far: { at: n1, to: n2 } }\n";
    let plan = recipe(two).unwrap();
    let second = Some(NodeRef("n2".parse().unwrap()));
    assert_eq!((&plan.outlets[0].arguments.at.at, &plan.relays[0].arguments.of.to), (&second, &second));
    let plan = recipe("nodes: n2\ntcp-outlet: { to: 80 }").unwrap();
    assert_eq!(plan.outlets[0].arguments.at.at, second);
    let plan = recipe("tcp-outlet: { to: 80 }").unwrap();
    assert_eq!(plan.outlets[0].arguments.at.at, None);
}

#[test]
fn a_variable_is_of_the_nearest() {
    let text = "variables:\n  A: file\n  B: ${A}-b\nname: $A\nidentity: $B\n";
    let environment = |name: &str| Ok((name == "A").then(|| "outside".to_owned()));
    let given = [Variable { name: "A".into(), value: "typed".into() }];
    for (given, environment, want) in [
        (&[][..], &nothing as &dyn Fn(&str) -> _, ["file", "file-b"]),
        (&[][..], &environment, ["outside", "outside-b"]),
        (&given[..], &environment, ["typed", "typed-b"]),
    ] {
        let plan = read(text, Kind::Node, given, environment).unwrap();
        assert_eq!([names(&plan)[0].as_str(), plan.nodes[0].arguments.identity.as_deref().unwrap()], want);
    }
    // Where what is around is no YAML before variables have their values, and in any order.
    let plan = node("tcp-outlet: [{ to: ${A} }, { to: ${A}0, from: b }]\nvariables:\n\n# one\n  A: 80\n").unwrap();
    let to: Vec<String> = plan.outlets.iter().map(|it| it.arguments.to.to_string()).collect();
    assert_eq!(to, ["127.0.0.1:80", "127.0.0.1:800"]);
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, line, column, about) in [
        ("", 1, 1, "nothing"),
        ("n1", 1, 1, "a text and not a map"),
        ("- n1", 1, 1, "a list and not a map"),
        ("version: 2", 1, 10, "not known"),
        ("name: n1\nfoo: bar\n", 2, 1, "`foo`"),
        ("name: n1\ntcp-oulet: {to: 80}\n", 2, 1, "tcp-oulet"),
        ("name: n/1", 1, 7, "`name` cannot be"),
        ("name: node.yaml", 1, 1, "that of a file"),
        ("name: [n1]", 1, 7, "a list and not a text"),
        ("threads: 0", 1, 10, "threads"),
        ("pin: yes", 1, 6, "true or false"),
        ("log-format: xml", 1, 13, "xml"),
        ("configuration: x", 1, 1, "not known here"),
        ("exit-on-eof: true", 1, 1, "foreground"),
        ("tcp-outlets:\n  db:\n    too: 127.0.0.1:80\n", 3, 5, "`too`"),
        ("tcp-outlets:\n  db:\n    tls: true\n", 2, 3, "`to` is missing"),
        ("tcp-outlets:\n  db:\n    to: nowhere\n", 3, 9, "nowhere"),
        ("tcp-outlets:\n  db:\n    to: 80\n    from: b\n", 4, 5, "names again"),
        ("tcp-outlets:\n  db: {to: 80}\n  x: 7\n", 3, 6, "beside maps"),
        ("tcp-outlets:\n  a/b: {to: 80}\n", 2, 3, "a/b"),
        ("tcp-outlets: {to: 80, at: n2}\nname: n1", 1, 14, "another node"),
        ("tcp-outlet: {to: 80}\ntcp-outlets: {to: 81}", 2, 1, "line 1"),
        ("tcp-inlet: 7\n", 1, 12, "`tcp-inlet` is a text"),
        ("tcp-inlet: {to: -/service/x}", 1, 12, "typed"),
        ("tcp-inlet: {to: /nod/x/service/y}", 1, 17, "`to` cannot be"),
        ("tcp-inlet:\n  to: /service/x\n  authorized: [I00]\n", 3, 15, "identifier"),
        ("relay: {at: '-'}", 1, 8, "typed"),
        ("relay: [[a]]", 1, 9, "a list"),
        ("relay: far", 1, 8, "`at` is missing"),
        ("nodes: [n1, n2]", 1, 1, "several nodes"),
        ("name: n1\nname: n2", 2, 1, "line 1"),
        ("name: $NAME", 1, 7, "NAME has no value"),
        ("variables: [A]", 1, 12, "a list"),
        ("variables:\n  A-B: 1\n", 2, 3, "A-B"),
        ("variables:\n  A:\n", 2, 4, "empty"),
        ("variables:\n  A: $B\nname: $A", 2, 6, "B has no value"),
        ("ticket: [a]", 1, 9, "a list"),
        ("ticket: ''", 1, 9, "`ticket` cannot be"),
        ("project-enroll: true", 1, 1, "enrolment"),
        ("policies: {db: {allow: admin and}}", 1, 24, "`allow` cannot be"),
        ("policies: {db: {}}", 1, 12, "`allow` is missing"),
        ("policy: {allow: admin}", 1, 9, "resource"),
        ("project: p\nauthority-identity: n\nauthority-route: /ip4/10.0.0.1/tcp/1", 1, 10, "project"),
        ("kafka-inlets: {}", 1, 1, "Kafka"),
        ("http-server: true", 1, 1, "HTTP server"),
        ("tcp-inlet:\n  to: x\n  allow: (\n", 3, 10, "`allow` cannot be"),
    ] {
        let fault = node(text).expect_err(text);
        assert_eq!((fault.place.line, fault.place.column), (line, column), "{text:?}: {}", fault.why);
        assert!(fault.why.contains(about), "{text:?}: {}", fault.why);
        let error = fault.error("the file x.yaml");
        assert_eq!(error.exit(), 65, "{text:?}");
        let told = error.to_string();
        assert!(told.contains(&format!("line {line}, column {column}: ")) && !told.contains('\n'), "{told}");
        assert!(!error.hint().is_empty());
    }
    for (text, line, column, about) in [
        ("nodes: [n1, n2]\ntcp-outlet: {to: 80}", 2, 13, "several nodes"),
        ("nodes: [n1, n1]", 1, 13, "two nodes"),
        ("nodes: [{threads: 1}]", 1, 9, "no name"),
        ("nodes: [{name: n1, foreground: true}]", 1, 9, "foreground"),
        ("name: n1", 1, 1, "`name`"),
    ] {
        let fault = recipe(text).expect_err(text);
        assert_eq!((fault.place.line, fault.place.column), (line, column), "{text:?}: {}", fault.why);
        assert!(fault.why.contains(about), "{text:?}: {}", fault.why);
    }
}

#[test]
fn the_nearest_key_is_named() {
    for (text, near) in [
        ("nam: n1", "`name`"),
        ("tcp-oulet: {to: 80}", "`tcp-outlets`"),
        ("tcp-inlet: {too: x}", "`to`"),
        ("tcp-inlet: {conection-wait: 1s, to: x}", "`connection-wait`"),
    ] {
        let fix = node(text).expect_err(text).fix.unwrap_or_default();
        assert!(fix.contains(near), "{text}: {fix}");
    }
    let fix = node("tcp-outlet: {zzz: 1}").expect_err("zzz").fix.unwrap_or_default();
    assert!(fix.contains("allow-plain") && !fix.contains("configuration"), "{fix}");
}

#[test]
fn the_page_says_what_can_be_read() {
    let page = include_str!("../../../docs/node-file.md");
    let texts: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(texts.len(), 2);
    let one = node(texts[0]).unwrap();
    assert_eq!((names(&one)[0].as_str(), one.relays.len(), one.inlets.len()), ("sidecar", 1, 1));
    let several = recipe(texts[1]).unwrap();
    assert_eq!((several.nodes.len(), several.outlets.len(), several.inlets.len()), (3, 1, 1));
}

#[test]
fn what_is_too_long_is_not_read() {
    let long = format!("name: {}", "x".repeat(TEXT_BYTES_MAX));
    assert!(node(&long).unwrap_err().why.contains("1 MiB"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
        let _ = node(&text);
        let _ = recipe(&text);
    }

    #[test]
    fn any_keys_and_marks_are_read_or_refused(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "name", "tcp-inlet", "relays", "variables", "to", ": ", "\n", "  ", "- ", "{", "}", "[", "]", "$A", "${", "&a ",
                "*a", "'", "\"", "#", "|", "n1", ",", "? ", "---",
            ]),
            0..40,
        ),
    ) {
        let _ = node(&parts.concat());
    }
}
