//! What a file says that a node shall be (`ockam node create FILE`), or several (`ockam run`): from text and variables to
//! the arguments of the commands that a person would type. Pure: nothing is read, looked up or changed.
//!
//! ```yaml
//! variables: { TARGET: 5432 }          # $TARGET and ${TARGET:-5432}; before these count the environment and --variable
//! name: sidecar                        # and any other option of `node create`
//! identities: [keeper]                 # vaults, identities: made if there is none of the name
//! identity: keeper
//! ticket: /run/secrets/ticket          # the identity becomes a member of the ticket's project, and the node believes it
//! policies:
//!   db: { allow: cluster=production }
//! relays:
//!   far: { at: /dnsaddr/relay.example/tcp/4000 }
//! tcp-outlet:                          # singular or plural; one map of arguments, names with maps, or a list of them
//!   to: $TARGET
//! tcp-inlets:
//!   web: { from: 8080, to: /node/n3/secure/api/service/web }
//! ```
//!
//! A key is the long name of an option of the command that makes the thing; the name in front of a map is its name (the
//! address of an outlet, the alias of an inlet).

mod tree;
mod variables;

use crate::cli::args::identity::IdentityCreate;
use crate::cli::args::node::NodeCreate;
use crate::cli::args::policy::PolicyCreate;
use crate::cli::args::relay::RelayCreate;
use crate::cli::args::tcp_inlet::TcpInletCreate;
use crate::cli::args::tcp_outlet::TcpOutletCreate;
use crate::cli::args::vault::VaultCreate;
use crate::cli::stdin::RouteArg;
use crate::cli::values::{self, InletTo, NodeRef, NodeSource, TicketArg, Variable, is_variable_name};
use crate::error::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args};
use std::error::Error as _;
use std::fmt;
use tree::{Key, Tree, Value};
use variables::{Expanded, expand};

/// Longest text in bytes, as written and with values in the place of variables.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// A place in a text, both from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What, as a sentence without its end.
    pub why: String,
    /// What would be right, where that is known.
    pub fix: Option<String>,
}

impl Fault {
    fn new(place: Place, why: impl Into<String>) -> Fault {
        Fault { place, why: why.into(), fix: None }
    }

    fn with_fix(place: Place, why: impl Into<String>, fix: impl Into<String>) -> Fault {
        Fault { place, why: why.into(), fix: Some(fix.into()) }
    }

    /// The error for people. `what` names the text: `the file node.yaml`.
    pub fn error(self, what: &str) -> Error {
        let fix = self.fix.unwrap_or_else(|| "`ockam node create --help` shows how such a file looks.".into());
        Error::BadData { what: what.to_owned(), why: format!("{}: {}", self.place, self.why), fix }
    }
}

/// Arguments of a command, and where in the text they come from.
#[derive(Debug)]
pub struct Step<T> {
    /// Where.
    pub place: Place,
    /// The arguments.
    pub arguments: T,
}

/// All that a text asks for. Done in the order of the fields.
#[derive(Debug, Default)]
pub struct Plan {
    /// Vaults that there shall be.
    pub vaults: Vec<Step<VaultCreate>>,
    /// Identities that there shall be.
    pub identities: Vec<Step<IdentityCreate>>,
    /// Nodes; exactly one of a node's own file.
    pub nodes: Vec<Step<NodeCreate>>,
    /// Policies, before anything that they are for; `at` as `of` of a relay.
    pub policies: Vec<Step<PolicyCreate>>,
    /// Relays; `of` is the node, absent where it is the one of the file or the default one.
    pub relays: Vec<Step<RelayCreate>>,
    /// Outlets; `at` as `of` of a relay.
    pub outlets: Vec<Step<TcpOutletCreate>>,
    /// Inlets; `at` as `of` of a relay.
    pub inlets: Vec<Step<TcpInletCreate>>,
}

impl Plan {
    /// Has everything be of the one node, whatever that is called.
    pub fn of_the_node(&mut self) {
        self.policies.iter_mut().for_each(|step| step.arguments.at.at = None);
        self.relays.iter_mut().for_each(|step| step.arguments.of.to = None);
        self.outlets.iter_mut().for_each(|step| step.arguments.at.at = None);
        self.inlets.iter_mut().for_each(|step| step.arguments.at.at = None);
    }
}

/// For what a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One node: `ockam node create`.
    Node,
    /// Any number of them: `ockam run`.
    Recipe,
}

/// Options of commands that are no keys: they say where the text is, or are for who types.
const NO_KEYS: [&str; 4] = ["configuration", "node-config", "variable", "yes"];

/// Keys that Ockam knows and this version does not, and what they are for.
const LATER: [(&str, &str); 21] = [
    ("project-enroll", "enrolment without a ticket"),
    ("http-server", "the HTTP server of a node"),
    ("enable-http-server", "the HTTP server of a node"),
    ("http-server-port", "the HTTP server of a node"),
    ("kafka-inlet", "Kafka portals"),
    ("kafka-inlets", "Kafka portals"),
    ("kafka-outlet", "Kafka portals"),
    ("kafka-outlets", "Kafka portals"),
    ("influxdb-inlet", "InfluxDB portals"),
    ("influxdb-inlets", "InfluxDB portals"),
    ("influxdb-outlet", "InfluxDB portals"),
    ("influxdb-outlets", "InfluxDB portals"),
    ("udp", "UDP"),
    ("enable-udp-puncture", "UDP"),
    ("no-tcp-fallback", "UDP"),
    ("ebpf", "privileged portals"),
    ("tls-certificate-provider", "TLS at inlets"),
    ("launch-config", "launch configurations"),
    ("launch-configuration", "launch configurations"),
    ("opentelemetry-context", "telemetry, which this program does not have"),
    ("child-process", "the way in which Ockam starts processes, which this program does not need"),
];

/// Reads a text. `given` is what was typed for variables, `environment` what the environment says.
///
/// # Errors
/// What is wrong, and where.
pub fn read(
    text: &str,
    kind: Kind,
    given: &[Variable],
    environment: &dyn Fn(&str) -> Result<Option<String>, String>,
) -> Result<Plan, Fault> {
    let begin = Place { line: 1, column: 1 };
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::new(begin, "it is longer than 1 MiB"));
    }
    // What some editors put in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let own = own_variables(text, given, environment)?;
    let look_up = |name: &str| look_up(name, given, environment, &own);
    let tree = tree::parse(&expand(text, &look_up)?)?;
    let Value::Map(entries) = tree.value else {
        let why = format!("this is {} and not a map, such as `name: n1`", tree.value.kind());
        let fix = "Begin with keys; to have a file read, give its name in the place of the node's name.";
        return Err(Fault::with_fix(tree.place, why, fix));
    };
    plan(entries, kind)
}

/// What `name` stands for: as typed, as in the environment, or as the text says.
fn look_up(
    name: &str,
    given: &[Variable],
    environment: &dyn Fn(&str) -> Result<Option<String>, String>,
    own: &[Variable],
) -> Result<Option<String>, String> {
    let of = |all: &[Variable]| all.iter().find(|it| it.name == name).map(|it| it.value.clone());
    match of(given) {
        Some(value) => Ok(Some(value)),
        None => Ok(environment(name)?.or_else(|| of(own))),
    }
}

/// The section `variables`, which is read before anything else: what is around it may be no YAML before variables have
/// their values. It ends where another line begins that is neither indented nor a comment.
fn own_variables(
    text: &str,
    given: &[Variable],
    environment: &dyn Fn(&str) -> Result<Option<String>, String>,
) -> Result<Vec<Variable>, Fault> {
    let mut section = String::new();
    let mut is_inside = false;
    for line in text.split_inclusive('\n') {
        let begins_something = !line.starts_with([' ', '\t', '#', '\r', '\n', '}', ']']);
        is_inside = if begins_something { line.starts_with("variables:") } else { is_inside };
        // Lines before it stay as empty ones, so that places are right.
        section.push_str(if is_inside { line } else { "\n" });
    }
    if section.trim().is_empty() {
        return Ok(Vec::new());
    }
    let Value::Map(entries) = tree::parse(&Expanded::plain(&section))?.value else { return Ok(Vec::new()) };
    let Some((_, variables)) = entries.into_iter().next() else { return Ok(Vec::new()) };
    let entries = match variables.value {
        Value::Map(entries) => entries,
        Value::Null => return Ok(Vec::new()),
        other => {
            let why = format!("`variables` is {} and not a map of names and values", other.kind());
            return Err(Fault::with_fix(variables.place, why, "Write it as in `variables: { PORT: 5432 }`."));
        }
    };
    let mut own: Vec<Variable> = Vec::with_capacity(entries.len());
    for (key, tree) in entries {
        if !is_variable_name(&key.text) {
            let why = format!("`{}` is no name of a variable: use letters, digits and `_`", key.text);
            return Err(Fault::new(key.place, why));
        }
        let value = match &tree.value {
            Value::Text(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            other => {
                let why = format!("the value of the variable {} is {} and not a text", key.text, other.kind());
                return Err(Fault::with_fix(
                    tree.place,
                    why,
                    "Leave it out, or give it a value; quotes make an empty one.",
                ));
            }
        };
        // It may be made of those before it.
        let expanded = expand(&value, &|name| look_up(name, given, environment, &own));
        let value = expanded.map_err(|fault| Fault { place: tree.place, ..fault })?.text;
        own.push(Variable { name: key.text, value });
    }
    Ok(own)
}

fn plan(entries: Vec<(Key, Tree)>, kind: Kind) -> Result<Plan, Fault> {
    let mut plan = Plan::default();
    let mut node = Vec::new();
    let mut ticket = None;
    let mut seen: Vec<(&'static str, Place)> = Vec::new();
    for (key, tree) in entries {
        let mut once = |section: &'static str| {
            if let Some((_, first)) = seen.iter().find(|(name, _)| *name == section) {
                let why = format!("`{}` is the same section as the one in line {}", key.text, first.line);
                return Err(Fault::with_fix(key.place, why, "Put both into one."));
            }
            seen.push((section, key.place));
            Ok(())
        };
        match key.text.as_str() {
            "version" if tree.value == Value::Text("1".into()) => {}
            "version" => {
                let why = "this version of the form of files is not known";
                return Err(Fault::with_fix(tree.place, why, "Write `version: 1`, or leave it out."));
            }
            // Read before.
            "variables" => {}
            "vault" | "vaults" => {
                once("vaults")?;
                plan.vaults = steps(&key, &tree, Naming::Positional)?;
            }
            "identities" => {
                once("identities")?;
                plan.identities = steps(&key, &tree, Naming::Positional)?;
            }
            "policy" | "policies" => {
                once("policies")?;
                plan.policies = steps(&key, &tree, Naming::Option("resource"))?;
            }
            "relay" | "relays" => {
                once("relays")?;
                plan.relays = steps(&key, &tree, Naming::Positional)?;
            }
            "tcp-outlet" | "tcp-outlets" => {
                once("outlets")?;
                plan.outlets = steps(&key, &tree, Naming::Option("from"))?;
            }
            "tcp-inlet" | "tcp-inlets" => {
                once("inlets")?;
                plan.inlets = steps(&key, &tree, Naming::Option("alias"))?;
            }
            "node" | "nodes" if kind == Kind::Recipe => {
                once("nodes")?;
                plan.nodes = steps(&key, &tree, Naming::Positional)?;
            }
            "node" | "nodes" => {
                let fix = "Use `ockam run` for it, or say what the one node is: `name`, `identity`, `tcp-inlets` ...";
                return Err(Fault::with_fix(key.place, format!("`{}` is for several nodes", key.text), fix));
            }
            // In a recipe it is that of `identities`; a node's own file says with it who the node is.
            "identity" if kind == Kind::Recipe => {
                once("identities")?;
                plan.identities = steps(&key, &tree, Naming::Positional)?;
            }
            "ticket" | "enrollment-ticket" if kind == Kind::Recipe => {
                once("ticket")?;
                ticket = Some((tree.place, ticket_of(&key, &tree)?));
            }
            _ if kind == Kind::Node => node.push((key, tree)),
            _ => return Err(unknown(&key, &SECTIONS)),
        }
    }
    if kind == Kind::Node {
        let place = node.first().map_or(Place { line: 1, column: 1 }, |(key, _)| key.place);
        let item = Item { place, name: None, entries: &node };
        plan.nodes = vec![step(item, Naming::Positional, &SECTIONS)?];
    }
    if let Some((place, ticket)) = ticket {
        if plan.nodes.is_empty() {
            let fix = "Add the nodes to `nodes`, or enroll with `ockam enroll`.";
            return Err(Fault::with_fix(place, "a ticket is for the nodes of a recipe, and it has none", fix));
        }
        for step in &mut plan.nodes {
            step.arguments.enrollment_ticket.get_or_insert_with(|| ticket.clone());
        }
    }
    let tickets = plan.nodes.iter_mut().filter_map(|step| step.arguments.enrollment_ticket.as_mut());
    tickets.for_each(|ticket| ticket.is_typed = false);
    check(&mut plan, kind)?;
    Ok(plan)
}

/// The ticket of a recipe, with which the identities of all its nodes become members.
fn ticket_of(key: &Key, tree: &Tree) -> Result<TicketArg, Fault> {
    match &tree.value {
        Value::Text(text) => values::ticket(text).map_err(|why| Fault::new(tree.place, why)),
        other => Err(Fault::new(tree.place, format!("`{}` is {} and not a text", key.text, other.kind()))),
    }
}

/// Keys of the whole, beside the options of `node create`.
const SECTIONS: [&str; 10] = [
    "version",
    "variables",
    "vaults",
    "identities",
    "ticket",
    "nodes",
    "policies",
    "relays",
    "tcp-outlets",
    "tcp-inlets",
];

/// What no single argument shows.
fn check(plan: &mut Plan, kind: Kind) -> Result<(), Fault> {
    let mut names = Vec::new();
    for step in &plan.nodes {
        match &step.arguments.name {
            Some(NodeSource::Name(name)) => names.push(name.clone()),
            None if kind == Kind::Node => {}
            None => {
                let fix = "Name it: in front of the map, or by `name`.";
                return Err(Fault::with_fix(step.place, "a node of a recipe has no name", fix));
            }
            Some(_) => {
                let fix = "Use letters, digits, `_` and `-`, such as n1.";
                return Err(Fault::with_fix(step.place, "the name of the node is that of a file", fix));
            }
        }
        if kind == Kind::Recipe && (step.arguments.foreground || step.arguments.exit_on_eof) {
            let fix = "Leave it out, or give the node a file of its own for `ockam node create FILE --foreground`.";
            return Err(Fault::with_fix(step.place, "a node of a recipe has no foreground", fix));
        }
        if kind == Kind::Recipe && step.arguments.replace {
            let fix = "Leave it out, and type `ockam run --replace`.";
            return Err(Fault::with_fix(step.place, "what differs is made anew for a whole recipe, or not", fix));
        }
    }
    for pair in 1..names.len() {
        if names[..pair].contains(&names[pair]) {
            let why = format!("there are two nodes named {}", names[pair]);
            return Err(Fault::new(plan.nodes[pair].place, why));
        }
    }
    let whose = |place: Place, at: &mut Option<NodeRef>, key: &str| match (at.is_some(), names.as_slice(), kind) {
        (false, [one], _) => {
            *at = Some(NodeRef(one.clone()));
            Ok(())
        }
        (false, [_, _, ..], _) => {
            let all = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            Err(Fault::with_fix(
                place,
                format!("this is of one of several nodes, and `{key}` does not say which"),
                format!("Write `{key}:` and one of {all}."),
            ))
        }
        (true, [one], Kind::Node) if *at != Some(NodeRef(one.clone())) => {
            let fix = "Leave it out; `ockam run` makes several nodes of one file.";
            Err(Fault::with_fix(place, format!("this is of another node than {one}, of which the file is"), fix))
        }
        _ => Ok(()),
    };
    for step in &mut plan.policies {
        whose(step.place, &mut step.arguments.at.at, "at")?;
    }
    for step in &mut plan.relays {
        whose(step.place, &mut step.arguments.of.to, "to")?;
    }
    for step in &mut plan.outlets {
        whose(step.place, &mut step.arguments.at.at, "at")?;
    }
    for step in &mut plan.inlets {
        whose(step.place, &mut step.arguments.at.at, "at")?;
    }
    let relays = plan.relays.iter().map(|step| (step.place, &step.arguments.at));
    let inlets = plan.inlets.iter().filter_map(|step| match &step.arguments.to {
        InletTo::Route(route) => Some((step.place, route)),
        InletTo::Service(_) => None,
    });
    for (place, route) in relays.chain(inlets) {
        if let RouteArg::WithStdin(_) = route {
            return Err(Fault::with_fix(
                place,
                "a `-` in a route is for commands that are typed",
                "Write the route out.",
            ));
        }
    }
    Ok(())
}

// ---- from maps to arguments

/// How the name in front of a map is given to the command.
#[derive(Debug, Clone, Copy)]
enum Naming {
    /// As its first argument, which is called `name` as a key.
    Positional,
    /// As this option.
    Option(&'static str),
}

/// A thing, as the text says it.
struct Item<'t> {
    place: Place,
    name: Option<&'t Key>,
    entries: &'t [(Key, Tree)],
}

fn steps<T: Args>(section: &Key, tree: &Tree, naming: Naming) -> Result<Vec<Step<T>>, Fault> {
    let mut found = Vec::new();
    let mut names = Vec::new();
    collect(section, tree, naming, true, &mut names, &mut found)?;
    // Names that are items of a list.
    let named = names.iter().map(|name| Item { place: name.place, name: Some(name), entries: &[] });
    let mut items: Vec<Item<'_>> = named.chain(found).collect();
    items.sort_by_key(|item| item.place);
    items.into_iter().map(|item| step(item, naming, &[])).collect()
}

/// A name, a map of arguments, a map of names with maps, or a list of these.
fn collect<'t>(
    section: &Key,
    tree: &'t Tree,
    naming: Naming,
    may_be_list: bool,
    names: &mut Vec<Key>,
    items: &mut Vec<Item<'t>>,
) -> Result<(), Fault> {
    match (&tree.value, naming) {
        (Value::Text(text), Naming::Positional) => names.push(Key { place: tree.place, text: text.clone() }),
        (Value::List(list), _) if may_be_list => {
            for tree in list {
                collect(section, tree, naming, false, names, items)?;
            }
        }
        (Value::Map(entries), _) if entries.iter().any(|(_, tree)| matches!(tree.value, Value::Map(_))) => {
            for (key, tree) in entries {
                let entries: &[(Key, Tree)] = match &tree.value {
                    Value::Map(entries) => entries,
                    Value::Null => &[],
                    other => {
                        let why = format!(
                            "`{}` is {} beside maps: in one map are either names or arguments",
                            key.text,
                            other.kind()
                        );
                        return Err(Fault::new(tree.place, why));
                    }
                };
                items.push(Item { place: key.place, name: Some(key), entries });
            }
        }
        // Names without arguments.
        (Value::Map(entries), Naming::Positional)
            if !entries.is_empty() && entries.iter().all(|(_, tree)| tree.value == Value::Null) =>
        {
            items.extend(entries.iter().map(|(key, _)| Item { place: key.place, name: Some(key), entries: &[] }));
        }
        (Value::Map(entries), _) => items.push(Item { place: tree.place, name: None, entries }),
        (Value::Null, _) => {}
        (other, _) => {
            let shapes = match naming {
                Naming::Positional => "a name, a map or a list",
                Naming::Option(_) => "a map or a list of maps",
            };
            let why = format!("`{}` is {} here, and must be {shapes}", section.text, other.kind());
            return Err(Fault::new(tree.place, why));
        }
    }
    Ok(())
}

/// Has the command read its arguments, as if they were typed.
fn step<T: Args>(item: Item<'_>, naming: Naming, also: &[&str]) -> Result<Step<T>, Fault> {
    let command = T::augment_args(clap::Command::new("file").no_binary_name(true).disable_help_flag(true));
    let options: Vec<&clap::Arg> = command.get_arguments().collect();
    let mut known: Vec<&str> = also.to_vec();
    let mut typed: Vec<String> = Vec::new();
    let mut positional = None;
    match (item.name, naming) {
        (Some(name), Naming::Positional) => positional = Some(name.text.clone()),
        (Some(name), Naming::Option(option)) => typed.push(format!("--{option}={}", name.text)),
        (None, _) => {}
    }
    for option in &options {
        known.extend(option.get_long_and_visible_aliases().unwrap_or_default());
        if option.is_positional() {
            known.push("name");
        }
    }
    known.retain(|key| !NO_KEYS.contains(key));
    for (key, tree) in item.entries {
        let option = options.iter().find(|option| match option.is_positional() {
            true => key.text == "name",
            false => option.get_long_and_visible_aliases().is_some_and(|names| names.contains(&key.text.as_str())),
        });
        let Some(option) = option.filter(|_| known.contains(&key.text.as_str())) else {
            return Err(unknown(key, &known));
        };
        let is_name = match naming {
            Naming::Positional => option.is_positional(),
            Naming::Option(name) => option.get_long() == Some(name),
        };
        if let (true, Some(name)) = (is_name, item.name) {
            let why = format!("`{}` names again what is called {}", key.text, name.text);
            return Err(Fault::new(key.place, why));
        }
        let text = |tree: &Tree| match &tree.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Bool(value) => Ok(value.to_string()),
            other => Err(Fault::new(tree.place, format!("`{}` is {} and not a text", key.text, other.kind()))),
        };
        match (&tree.value, option.get_action()) {
            (Value::Bool(true), ArgAction::SetTrue) => typed.push(format!("--{}", key.text)),
            (Value::Bool(false), ArgAction::SetTrue) => {}
            (other, ArgAction::SetTrue) => {
                let why = format!("`{}` is {} and not true or false", key.text, other.kind());
                return Err(Fault::new(tree.place, why));
            }
            (Value::List(list), ArgAction::Append) => {
                for tree in list {
                    typed.push(format!("--{}={}", key.text, text(tree)?));
                }
            }
            _ if option.is_positional() => positional = Some(text(tree)?),
            _ => typed.push(format!("--{}={}", key.text, text(tree)?)),
        }
    }
    if let Some(name) = positional {
        typed.extend(["--".to_owned(), name]);
    }
    // A key may be another name of an option than the one that the command says.
    let written = |long: &str| {
        let option = options.iter().find(|option| option.get_long() == Some(long));
        let names = option.and_then(|option| option.get_long_and_visible_aliases()).unwrap_or_default();
        item.entries.iter().map(|(key, _)| key.text.as_str()).find(|key| names.contains(key)).map(str::to_owned)
    };
    let written: Vec<(String, String)> = options
        .iter()
        .filter_map(|option| option.get_long())
        .filter_map(|long| Some((long.to_owned(), written(long)?)))
        .collect();
    let matches = command.try_get_matches_from(typed).map_err(|error| misread(&error, &item, &written))?;
    let arguments = T::from_arg_matches(&matches).map_err(|error| misread(&error, &item, &written))?;
    Ok(Step { place: item.place, arguments })
}

/// What a command says of its arguments, at the place in the text. `written` says which key stands for which option.
fn misread(error: &clap::Error, item: &Item<'_>, written: &[(String, String)]) -> Fault {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(named)) => named.clone(),
        Some(ContextValue::Strings(named)) => named.join(", "),
        _ => String::new(),
    };
    // As in `--to <TARGET>`, `<NAME>`, or `<--one <A>|--other <B>>`.
    let option = named.trim_start_matches('<').split([' ', '=']).next().unwrap_or_default();
    let key = option.strip_prefix("--").unwrap_or("name");
    let key = written.iter().find(|(long, _)| long == key).map_or(key, |(_, written)| written.as_str());
    let entry = item.entries.iter().find(|(entry, _)| entry.text == key);
    let place = match (entry, item.name) {
        (Some((_, tree)), _) => tree.place,
        (None, Some(name)) => name.place,
        (None, None) => item.place,
    };
    match (error.kind(), error.get(ContextKind::InvalidValue)) {
        (ErrorKind::MissingRequiredArgument, _) => {
            let fix = format!("Write `{key}:` and its value.");
            Fault::with_fix(item.place, format!("`{key}` is missing"), fix)
        }
        (_, Some(ContextValue::String(value))) => {
            let shown = crate::text::escape(value.as_bytes(), 200);
            let why = error.source().map(ToString::to_string);
            let valid = error.get(ContextKind::ValidValue).map(|valid| format!("it is one of {valid}"));
            let why = why.or(valid).unwrap_or_else(|| "it does not fit".into());
            Fault::new(place, format!("`{key}` cannot be `{shown}`: {why}"))
        }
        _ => {
            let text = error.to_string();
            let said = text.lines().next().unwrap_or_default();
            Fault::new(place, said.strip_prefix("error: ").unwrap_or(said).to_owned())
        }
    }
}

/// The fault of a key that is not known here.
fn unknown(key: &Key, known: &[&str]) -> Fault {
    let shown = crate::text::escape(key.text.as_bytes(), 100);
    if let Some((_, feature)) = LATER.iter().find(|(later, _)| *later == key.text) {
        let why = format!("`{shown}` is not supported yet: it is for {feature}");
        return Fault::with_fix(key.place, why, "Leave it out.");
    }
    let near = |known: &&&str| (strsim::jaro_winkler(known, &key.text) * 1000.0) as u64;
    let fix = match known.iter().max_by_key(near) {
        Some(nearest) if near(&nearest) > 750 => format!("Did you mean `{nearest}`?"),
        _ => format!("Known here are {}.", known.join(", ")),
    };
    Fault::with_fix(key.place, format!("`{shown}` is not known here"), fix)
}

#[cfg(test)]
mod tests;
