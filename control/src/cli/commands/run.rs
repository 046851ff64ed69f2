//! `ockam run`.

use super::Session;
use super::apply::{self, Before, Differing, Text};
use crate::cli::args::run::RunRecipe;
use crate::cli::show::Output;
use crate::cli::values::NodeSource;
use crate::error::Error;
use crate::home::NodeName;
use crate::node_file::Kind;
use serde::Serialize;
use std::path::Path;

/// What a recipe is called when nothing else is said.
const NAMES: [&str; 2] = ["ockam.yml", "ockam.yaml"];

/// The result under `--output json`.
#[derive(Serialize)]
struct Ran {
    nodes: Vec<NodeView>,
    /// What was added, as paths of the API of the nodes.
    added: Vec<Changed>,
    /// What was made anew, likewise.
    replaced: Vec<Changed>,
}

#[derive(Serialize)]
struct NodeView {
    name: String,
    /// `created`, `started` or `running`, when it ran before.
    was: &'static str,
}

#[derive(Serialize)]
struct Changed {
    node: String,
    path: String,
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the recipe; what the commands say that it stands for.
pub fn run(arguments: RunRecipe, session: &mut Session) -> Result<(), Error> {
    let text = match (arguments.inline, arguments.recipe) {
        (Some(inline), _) => Text::of_argument("--inline", inline),
        (None, Some(source)) => Text::read(&source)?,
        (None, None) => {
            let found = NAMES.iter().find(|name| Path::new(name).exists()).ok_or_else(|| Error::InputMissing {
                what: format!("the recipe: a file named {}", NAMES.join(" or ")),
                fix: "Give the name of one, or --inline YAML.".into(),
            })?;
            Text::read(&NodeSource::File(found.into()))?
        }
    };
    let plan = text.plan(Kind::Recipe, &arguments.variable)?;
    let done = apply::apply(plan, Differing::of(arguments.replace), session)?;
    let nodes = done.nodes().iter().map(|(name, before)| NodeView {
        name: name.to_string(),
        was: match before {
            Before::New => "created",
            Before::Stopped => "started",
            Before::Running => "running",
        },
    });
    let changed = |(node, path): (&NodeName, &str)| Changed { node: node.to_string(), path: path.to_owned() };
    let (added, replaced) = (done.added().map(changed).collect(), done.replaced().map(changed).collect());
    let result = Ran { nodes: nodes.collect(), added, replaced };
    let plain = || {
        let nodes = result.nodes.iter().map(|node| match node.was {
            "running" => format!("{} was running already.", node.name),
            was => format!("{} is {was}.", node.name),
        });
        let added = result.added.iter().map(|it| format!("{} has {} now.", it.node, it.path.trim_start_matches('/')));
        let replaced = result.replaced.iter();
        let replaced =
            replaced.map(|it| format!("{} of {} is another one now.", it.path.trim_start_matches('/'), it.node));
        let lines: Vec<String> = nodes.chain(added).chain(replaced).collect();
        if lines.is_empty() { "Everything was there already.".into() } else { lines.join("\n") }
    };
    let names: Vec<&str> = result.nodes.iter().map(|node| node.name.as_str()).collect();
    let machine = names.join("\n");
    session.terminal.print(Output::new(&result, plain).machine(machine))
}
